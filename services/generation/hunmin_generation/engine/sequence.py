"""One prompt and its completion as the scheduler sees it: token ids, progress, blocks. Must not know torch or text."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto


class Status(Enum):
    """Where a sequence is in its life."""

    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(eq=False)
class Sequence:
    """A prompt and what follows it.

    `tokens` are ids of the prompt, then of the completion; the first `computed` have their keys and values in `blocks`.
    `max_length` bounds prompt and completion together; it is the prompt's length if only that is scored.
    """

    tokens: "array[int]"  # array is generic for the type checker only
    prompt_length: int
    max_length: int
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    status: Status = Status.WAITING

    @classmethod
    def of(cls, prompt: Iterable[int], *, max_tokens: int) -> "Sequence":
        """Start a sequence from the ids of its prompt."""
        tokens = array("q", prompt)
        return cls(tokens=tokens, prompt_length=len(tokens), max_length=len(tokens) + max_tokens)

    @property
    def pending(self) -> int:
        """How many tokens are still to be run through the model: 1 while decoding, more while prefilling."""
        return len(self.tokens) - self.computed

    @property
    def completion_length(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self.prompt_length

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

    `tokens` are ids of the prompt, then of the completion, -1 - k at row k of the soft prompt; the first `computed`
    have their keys and values in `blocks`. `max_length` bounds prompt and completion together; it is the prompt's
    length if only that is run. `root` tells what the tokens mean, and sequences of one root share blocks; `reusable` is
    how many first tokens need not be run again if their keys and values are there. Others will begin with the first
    `shared` tokens, those of a soft prompt, wherever in a block they end. Lower `priority` goes first.
    """

    tokens: "array[int]"  # array is generic for the type checker only
    prompt_length: int
    max_length: int
    root: bytes = b""
    reusable: int = 0
    shared: int = 0
    priority: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they were needed
    status: Status = Status.WAITING

    @classmethod
    def of(
        cls,
        prompt: Iterable[int],
        *,
        max_tokens: int,
        root: bytes = b"",
        reusable: int | None = None,
        shared: int = 0,
        priority: int = 0,
    ) -> "Sequence":
        """Start a sequence from the ids of its prompt, all but the last of which are reusable unless told otherwise."""
        tokens = array("q", prompt)
        length = len(tokens)
        return cls(
            tokens=tokens,
            prompt_length=length,
            max_length=length + max_tokens,
            root=root,
            reusable=length - 1 if reusable is None else reusable,
            shared=shared,
            priority=priority,
        )

    @property
    def pending(self) -> int:
        """How many tokens are still to be run through the model: 1 while decoding, more while prefilling."""
        return len(self.tokens) - self.computed

    @property
    def completion_length(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self.prompt_length

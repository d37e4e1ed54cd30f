"""One text that grows by events, and how it ended in CLOVA Studio's words. Pure: no I/O."""

from typing import Literal

from hunmin_contracts.generation import ChunkEvent, FinishReason, PromptEvent, TokenLogprob

from hunmin_gateway.exchange import Event

StopReason = Literal["length", "stop_before"]


class Text:
    """What was generated so far, and the tokens of prompt and text where they were asked for."""

    def __init__(self) -> None:
        self.content = ""
        self.input_length = 0
        self.output_length = 0
        self.finish_reason: FinishReason | None = None
        self.prompt_tokens: list[TokenLogprob] = []
        self.tokens: list[TokenLogprob] = []

    def take(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case PromptEvent():
                self.input_length = event.prompt_tokens
                self.prompt_tokens = event.tokens
            case ChunkEvent():
                self.content += event.text
                self.output_length = event.completion_tokens
                self.tokens += event.tokens
                self.finish_reason = event.finish_reason

    @property
    def stop_reason(self) -> StopReason | None:
        """The end token and a stop string have one name: a model's turn is what the end token stops."""
        if self.finish_reason is None:
            return None
        return "length" if self.finish_reason == "length" else "stop_before"

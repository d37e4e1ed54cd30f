"""Which requests can ever be served, whatever computes the model. Must not know tensors or a server."""

from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_generation.engine.request import EngineRequest


def max_tokens(request: EngineRequest, *, max_length: int, vocab_size: int) -> int:
    """Return how many tokens `request` may generate; HunminError if it can never be served."""
    length, asked = len(request.prompt), request.max_tokens
    if length == 0:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "The prompt is empty: give at least one token to go on from.",
            param="prompt",
        )
    rows = len(request.soft_prompt.rows) if request.soft_prompt is not None else 0
    foreign = next((token for token in request.prompt if not -rows <= token < vocab_size), None)
    if foreign is not None:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"Token id {foreign} is not in the model's vocabulary of {vocab_size} tokens."
            if foreign >= 0
            else f"The prompt names row {-1 - foreign} of a soft prompt that has {rows} rows.",
            param="prompt",
        )
    if length + (1 if asked is None else asked) > max_length:
        # No parameter by name: each dialect has its own, and some calls none.
        wanted = f", and {asked} are to follow" if asked else ""
        remedy = "Shorten it or ask for fewer." if asked else "Shorten it."
        raise HunminError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {length} tokens{wanted}; the model takes {max_length} tokens in all. {remedy}",
            param="prompt",
            prompt_tokens=length,
            context_length=max_length,
        )
    return max_length - length if asked is None else asked

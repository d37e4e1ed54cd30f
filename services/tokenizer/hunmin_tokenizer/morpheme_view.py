"""Each token beside the morpheme that it lies in. It knows no HTTP."""

from collections.abc import Iterator

from hunmin_contracts.tokenization import MorphemeToken
from hunmin_text.pieces import Morpheme, analyse
from hunmin_text.tokenizer import Tokenizer


def morpheme_view(tokenizer: Tokenizer, text: str) -> list[MorphemeToken]:
    """List the tokens of a text with their morphemes.

    The spaces that begin a token do not count; a token of spaces, or of parts of two morphemes, has none.
    """
    encoding = tokenizer.encode_with_offsets(text)
    morphemes = iter(analyse(text))
    current = next(morphemes, None)
    tokens = []
    for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        covered = text[start:end]
        begin = end - len(covered.lstrip())
        current = _reach(current, morphemes, begin)
        found = current if current is not None and current.start <= begin < end <= current.end else None
        tokens.append(
            MorphemeToken(
                id=token_id,
                text=covered,
                span=(start, end),
                morpheme=found and found.surface,
                pos=found and found.pos,
                morpheme_span=found and (found.start, found.end),
            )
        )
    return tokens


def _reach(current: Morpheme | None, following: Iterator[Morpheme], place: int) -> Morpheme | None:
    """Go on to the first morpheme that ends after a place."""
    while current is not None and current.end <= place:
        current = next(following, None)
    return current

"""`client.tokenizers`: text to tokens and back, counts, morphemes."""

from collections.abc import Sequence

from hunmin_contracts.tokenization import (
    CountResponse,
    DecodeResponse,
    EncodeResponse,
    MorphemesResponse,
    TokenizerList,
)

from hunmin.call import Call, model, segment
from hunmin.resource import Resource, SenderT, sends


class Tokenizers(Resource[SenderT]):
    """The tokenizers of the studio. Their names are those of the models."""

    @sends
    def list(self) -> Call[TokenizerList]:
        """List every tokenizer."""
        return Call("GET", "tokenizers", model(TokenizerList))

    @sends
    def encode(self, tokenizer: str, text: str) -> Call[EncodeResponse]:
        """Encode a text; each id comes with the span of characters that it covers."""
        return Call("POST", _path(tokenizer, "encode"), model(EncodeResponse), body={"text": text})

    @sends
    def decode(self, tokenizer: str, ids: Sequence[int]) -> Call[DecodeResponse]:
        """Decode token ids."""
        return Call("POST", _path(tokenizer, "decode"), model(DecodeResponse), body={"ids": [*ids]})

    @sends
    def count(self, tokenizer: str, texts: Sequence[str]) -> Call[CountResponse]:
        """Count the tokens of each text."""
        return Call("POST", _path(tokenizer, "count"), model(CountResponse), body={"texts": [*texts]})

    @sends
    def morphemes(self, tokenizer: str, text: str) -> Call[MorphemesResponse]:
        """Show each token of a text with the morpheme it lies in and its part of speech."""
        return Call("POST", _path(tokenizer, "morphemes"), model(MorphemesResponse), body={"text": text})


def _path(tokenizer: str, verb: str) -> str:
    return f"tokenizers/{segment(tokenizer)}/{verb}"

"""What the service offers: the endpoints of `hunmin_contracts.tokenization`."""

from fastapi import APIRouter
from hunmin_contracts.schema import Empty
from hunmin_contracts.tokenization import (
    COUNT,
    DECODE,
    ENCODE,
    MORPHEMES,
    TOKENIZERS,
    CountRequest,
    CountResponse,
    DecodeRequest,
    DecodeResponse,
    EncodeRequest,
    EncodeResponse,
    MorphemesRequest,
    MorphemesResponse,
    TokenizerInfo,
    TokenizerList,
)
from hunmin_kit.web import serve

from hunmin_tokenizer.library import Library, Limits, worked
from hunmin_tokenizer.morpheme_view import morpheme_view


def routes(library: Library, limits: Limits) -> APIRouter:
    """Mount every endpoint on one library."""
    router = APIRouter()

    @serve(router, ENCODE)
    async def encode(request: EncodeRequest) -> EncodeResponse:
        tokenizer = library.get(request.tokenizer)
        limits.check_texts([request.text])
        encoding = await worked(len(request.text), limits, lambda: tokenizer.encode_with_offsets(request.text))
        return EncodeResponse(ids=encoding.ids, offsets=encoding.offsets)

    @serve(router, DECODE)
    async def decode(request: DecodeRequest) -> DecodeResponse:
        tokenizer = library.get(request.tokenizer)
        limits.check_ids(request.ids)
        return DecodeResponse(text=await worked(len(request.ids), limits, lambda: tokenizer.decode(request.ids)))

    @serve(router, COUNT)
    async def count(request: CountRequest) -> CountResponse:
        tokenizer = library.get(request.tokenizer)
        limits.check_texts(request.texts)
        characters = sum(map(len, request.texts))
        encoded = await worked(characters, limits, lambda: tokenizer.encode_batch(request.texts))
        return CountResponse(counts=[len(ids) for ids in encoded])

    @serve(router, MORPHEMES)
    async def morphemes(request: MorphemesRequest) -> MorphemesResponse:
        tokenizer = library.get(request.tokenizer)
        limits.check_texts([request.text])
        tokens = await worked(len(request.text), limits, lambda: morpheme_view(tokenizer, request.text))
        return MorphemesResponse(tokens=tokens)

    @serve(router, TOKENIZERS)
    async def tokenizers(request: Empty) -> TokenizerList:
        return TokenizerList(
            tokenizers=[
                TokenizerInfo(
                    name=tokenizer.name,
                    method=tokenizer.method,
                    vocab_size=tokenizer.vocab_size,
                    digest=tokenizer.digest,
                )
                for tokenizer in library.all()
            ]
        )

    return router

"""Files on their way from a form to the service that keeps them."""

from collections.abc import AsyncIterator

from fastapi import UploadFile

_PIECE_BYTES = 2**18


async def pieces(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield what the file holds, a piece in memory at a time."""
    while piece := await file.read(_PIECE_BYTES):
        yield piece

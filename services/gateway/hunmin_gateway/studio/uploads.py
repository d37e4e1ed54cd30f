"""Forms with files: each field once and not empty, and the file on its way to the service that keeps it."""

from collections.abc import AsyncIterator

from fastapi import Depends, Request, UploadFile
from hunmin_contracts.errors import ErrorCode, HunminError

_PIECE_BYTES = 2**18


async def pieces(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield what the file holds, a piece in memory at a time."""
    while piece := await file.read(_PIECE_BYTES):
        yield piece


async def _check_form(request: Request) -> None:
    """Refuse what FastAPI lets through: of a field sent twice it takes the last, an empty one it holds absent."""
    seen: set[str] = set()
    for name, value in (await request.form()).multi_items():  # read by now
        if name in seen:
            raise _refused(name, "is sent twice. Send it once")
        if value == "":
            raise _refused(name, "is empty. Give it a value, or leave it out")
        seen.add(name)


def _refused(name: str, why: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {name[:60]} {why}.", param=name[:60])


CheckedForm = Depends(_check_form)

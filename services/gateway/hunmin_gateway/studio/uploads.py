"""Forms with files: each field once and not empty, and the file on its way to the service that keeps it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, Request
from hunmin_contracts.errors import ErrorCode, HunminError
from starlette.datastructures import UploadFile

_PIECE_BYTES = 2**18
_MAX_TEXT_BYTES = 16 * 2**20  # the limit of a body holds too


async def pieces(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield what the file holds from its beginning, a piece in memory at a time."""
    await file.seek(0)
    while piece := await file.read(_PIECE_BYTES):
        yield piece


@asynccontextmanager
async def text_and_file(request: Request, text: str, file: str) -> AsyncGenerator[tuple[str, UploadFile], None]:
    """Give the two parts of a form that has no others: a text of any length, and a file that is not empty."""
    async with request.form(max_files=1, max_fields=1, max_part_size=_MAX_TEXT_BYTES) as form:
        await _check_form(request)
        for name in form:
            if name not in (text, file):
                raise _refused(name, f"is unknown. The form has the parts {text} and {file}")
        found, there = form.get(text), form.get(file)
        if not isinstance(found, str):
            raise _refused(text, "is missing. Send it as a part of the form that is no file")
        if not isinstance(there, UploadFile) or not there.size:
            raise _refused(file, "is missing or empty. Send it as a file")
        yield found, there


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

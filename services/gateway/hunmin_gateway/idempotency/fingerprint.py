"""What tells one request from another: its method, its path, and what is in its body, whatever its boundary."""

import asyncio
import hashlib
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import UploadFile

_MAX_FIELD_BYTES = 16 * 2**20  # the limit of a body holds too
_PIECE_BYTES = 2**20
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def fingerprint_of(request: Request) -> str:
    """Return the fingerprint of a request, whose body can be read as before."""
    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8))
        digest.update(part)

    add(request.method.encode())
    add(request.url.path.encode())
    add(request.url.query.encode())
    if not request.headers.get("content-type", "").lower().startswith(_FORMS):
        add(await request.body())
        return digest.hexdigest()
    # Each try has another boundary. The form is parsed once: the route finds what is read here.
    for name, value in (await request.form(max_part_size=_MAX_FIELD_BYTES)).multi_items():
        add(name.encode())
        if isinstance(value, UploadFile):
            add((value.filename or "").encode())
            add(await asyncio.to_thread(_digest, value.file))
            await value.seek(0)
        else:
            add(value.encode())
    return digest.hexdigest()


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.digest()

"""The secret under which keys are hashed: from the settings, or made once and kept in a file of mode 0600."""

import os
import secrets
from pathlib import Path

from hunmin_contracts.errors import ErrorCode, HunminError


def load_pepper(path: Path, *, configured: str | None, keys_exist: bool) -> bytes:
    """Return the configured pepper, else the one in `path`, which is made if no key depends on a lost one.

    Raises CONFLICT when keys exist but their pepper is gone: a new one would silently refuse them all; UNAVAILABLE when
    a new one cannot be written.
    """
    if configured is not None:
        return configured.encode()
    if path.exists():
        return path.read_bytes()
    if keys_exist:
        raise HunminError(
            ErrorCode.CONFLICT,
            f"API keys exist, but {path}, the secret they were hashed under, is gone. Restore that file, or set "
            "HUNMIN_GATEWAY_KEY_PEPPER to its content. To give the keys up, empty gateway.api_keys.",
        )
    try:
        return _make(path)
    except OSError as error:
        raise HunminError(
            ErrorCode.UNAVAILABLE,
            f"{path}, the secret that API keys are hashed under, cannot be written: {error.strerror}. "
            "Set HUNMIN_HOME to a folder that can be written, or HUNMIN_GATEWAY_KEY_PEPPER to a secret of your own.",
        ) from error


def _make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pepper = secrets.token_urlsafe(32).encode()
    unfinished = path.with_suffix(".new")  # a crash while writing must not leave a half-written secret under the name
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pepper)
    unfinished.replace(path)
    return pepper

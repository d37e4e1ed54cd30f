"""Secrets that are kept where others may read: in a cookie, or in a row. Sealed under the gateways' one pepper."""

import base64
import json
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hunmin_kit.identity import LoginStart

START_LIFE_S = 600  # to type a password in


class Seal:
    """Seals and opens; what was tampered with does not open."""

    def __init__(self, pepper: bytes) -> None:
        self._tokens, self._starts = (_fernet(pepper, use) for use in (b"hunmin login tokens", b"hunmin login starts"))

    def token(self, secret: str) -> bytes:
        """Seal a provider's secret."""
        return self._tokens.encrypt(secret.encode())

    def open_token(self, sealed: bytes) -> str | None:
        """Return what was sealed; None if it was under another pepper."""
        try:
            return self._tokens.decrypt(sealed).decode()
        except InvalidToken:
            return None

    def start(self, start: LoginStart, *, return_to: str) -> str:
        """Seal a login that has begun, for the browser to keep."""
        content = {"url": start.url, "state": start.state, "secrets": dict(start.secrets), "return_to": return_to}
        return self._starts.encrypt(json.dumps(content).encode()).decode()

    def open_start(self, sealed: str) -> tuple[LoginStart, str] | None:
        """Return what was sealed, with where to go after it; None if that was not done here, or long ago."""
        try:
            content: Mapping[str, object] = json.loads(self._starts.decrypt(sealed, ttl=START_LIFE_S))
        except (InvalidToken, ValueError):
            return None
        secrets = content["secrets"]
        start = LoginStart(
            url=str(content["url"]),
            state=str(content["state"]),
            secrets=secrets if isinstance(secrets, dict) else {},
        )
        return start, str(content["return_to"])


def _fernet(pepper: bytes, use: bytes) -> Fernet:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=use).derive(pepper)
    return Fernet(base64.urlsafe_b64encode(key))

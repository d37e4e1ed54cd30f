"""Issuers of tokens: one in this process, whose every part a test may bend, and a real Keycloak where there is one."""

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.identity import Login
from hunmin_kit.identity.local import LocalChange, LocalProvider, LocalUser, LocalUsers
from hunmin_kit.identity.local.passwords import Passwords
from hunmin_kit.identity.oidc import OidcProvider, OidcSettings
from hunmin_kit.testing.postgres import fresh_database
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey
from opentelemetry.trace import NoOpTracer
from sqlalchemy.ext.asyncio import AsyncSession

ISSUER = "https://login.example/realms/hunmin"
SETTINGS = OidcSettings(issuer=ISSUER, client_id="hunmin", client_secret="s e/c:r%et", audience="hunmin-api")
CALLBACK = "https://studio.example/auth/callback"


def rsa(bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, {"use": "sig", "kid": secrets.token_hex(4), "alg": "RS256"})


def ec() -> ECKey:
    return ECKey.generate_key("P-256", {"use": "sig", "kid": secrets.token_hex(4), "alg": "ES256"})


@dataclass
class Issuer:
    """An OpenID provider behind an HTTP transport. It knows one person, and whom `machine` names."""

    url: str = ISSUER
    keys: list[Key] = field(default_factory=list)
    is_away: bool = False
    reads: int = 0  # of the key set
    metadata: dict[str, Any] = field(default_factory=dict)  # changes of its description
    claims: dict[str, Any] = field(default_factory=dict)  # changes of the next tokens' claims
    id_claims: dict[str, Any] = field(default_factory=dict)  # the same of ID tokens alone
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refresh_tokens: set[str] = field(default_factory=set)

    @property
    def key(self) -> Key:
        """What it signs with."""
        return self.keys[-1]

    def access_claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "user-1",
            "aud": ["account", "hunmin-api"],
            "azp": "hunmin",
            "typ": "Bearer",
            "iat": now,
            "exp": now + 300,
            "sid": "sid-1",
            "name": "세종",
            "email": "sejong@example.org",
            "email_verified": True,
            "organization": ["acme"],
            "resource_access": {"hunmin": {"roles": ["developer"]}},
        }
        return _changed(claims, self.claims | changes)

    def id_token_claims(self, nonce: str, **changes: Any) -> dict[str, Any]:
        own = {"aud": "hunmin", "typ": "ID", "nonce": nonce}
        return _changed(self.access_claims(), own | self.id_claims | changes)

    def logout_claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        events = {"http://schemas.openid.net/event/backchannel-logout": {}}
        claims = {"iss": self.url, "aud": "hunmin", "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        return _changed(claims | {"typ": "Logout", "sub": "user-1", "sid": "sid-1", "events": events}, changes)

    def sign(self, claims: dict[str, Any], *, key: Key | None = None, **header: Any) -> str:
        key = key or self.key
        return jwt.encode({"alg": key.alg, "kid": key.kid} | header, claims, key)

    def code_for(self, url: str) -> dict[str, str]:
        """Log the person in, at the page that a browser was sent to; return what the browser brings back."""
        query = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_hex(8)
        self.codes[code] = query
        return {"code": code, "state": query["state"], "iss": self.url}

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("away", request=request)
        path = request.url.path.removeprefix(httpx.URL(self.url).path)
        if path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self._description())
        if path == "/certs":
            self.reads += 1
            return httpx.Response(200, json={"keys": [key.as_dict(private=False) for key in self.keys]})
        if path == "/token":
            return self._token({name: values[0] for name, values in parse_qs(request.content.decode()).items()})
        return httpx.Response(404, json={})

    def _description(self) -> dict[str, Any]:
        own = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/certs",
            "end_session_endpoint": f"{self.url}/logout",
            "code_challenge_methods_supported": ["plain", "S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return _changed(own, self.metadata)

    def _token(self, form: dict[str, str]) -> httpx.Response:
        if (form["client_id"], form["client_secret"]) != (SETTINGS.client_id, SETTINGS.client_secret):
            return httpx.Response(401, json={"error": "unauthorized_client"})
        nonce = ""
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            if asked is None or asked["redirect_uri"] != form["redirect_uri"] or not _proves(form, asked):
                return httpx.Response(400, json={"error": "invalid_grant"})
            nonce = asked["nonce"]
        elif form["refresh_token"] not in self.refresh_tokens:
            return httpx.Response(400, json={"error": "invalid_grant"})
        else:
            self.refresh_tokens.remove(form["refresh_token"])
        refresh_token = secrets.token_hex(8)
        self.refresh_tokens.add(refresh_token)
        tokens = {"access_token": self.sign(self.access_claims()), "refresh_token": refresh_token}
        return httpx.Response(200, json=tokens | {"id_token": self.sign(self.id_token_claims(nonce))})


def _proves(form: dict[str, str], asked: dict[str, str]) -> bool:
    proof = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    return asked["code_challenge_method"] == "S256" and proof == asked["code_challenge"]


def _changed(claims: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `claims` with these changes; a change to `...` takes the claim away."""
    return {name: value for name, value in (claims | changes).items() if value is not ...}


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token of any header, with any signature."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.fixture(scope="session")
def some_keys() -> list[Key]:
    """Keys that take a while to make."""
    return [rsa(), rsa(), ec()]


@pytest.fixture
def issuer(some_keys) -> Issuer:
    return Issuer(keys=[some_keys[0]])


@pytest_asyncio.fixture
async def provider(issuer) -> AsyncIterator[OidcProvider]:
    oidc = OidcProvider(SETTINGS, transport=httpx.MockTransport(issuer.answer))
    yield oidc
    await oidc.aclose()


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    """A schema that has the tables of local users."""
    async with fresh_database() as url:
        await Chain("front", "kit_sample.local_migrations").upgrade(url)
        opened = Database(url, schema="front", tracer=NoOpTracer(), pool_size=8)
        yield opened
        await opened.close()


@pytest.fixture
def changes() -> list[tuple[LocalChange, str]]:
    """What the users of `local` have done themselves, and who."""
    return []


@pytest.fixture
def local(database, changes) -> LocalProvider:
    """Users of one's own, whose passwords cost little."""

    async def note(session: AsyncSession, change: LocalChange, user: LocalUser) -> None:
        changes.append((change, user.email))

    return LocalProvider(database, form_path="/form", on_change=note, passwords=Passwords(PasswordHasher(1, 8, 1)))


async def register(database: Database, local: LocalProvider, email: str, password: str, **rights: list[str]) -> Login:
    """Make a user by an invitation."""
    async with database.session() as session:
        secret = await LocalUsers(session).invite(
            email, organizations=rights.get("organizations", ["acme"]), roles=rights.get("roles", ["developer"])
        )
    return await local.accept(secret, email=email, name="세종", password=password)

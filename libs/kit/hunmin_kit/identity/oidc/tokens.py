"""Reads a token that the provider has signed, and checks what all kinds of tokens have in common (RFC 8725).

Which kind a token is of must be asked by whoever reads it: `claims` tell its own words.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from hunmin_contracts.errors import ErrorCode, HunminError
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from hunmin_kit.identity.oidc.keys import KeyCache

# Signatures by a key pair: what verifies them cannot make them. No `none`, and no HS…, whose key a verifier shares.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LEEWAY_S = 10  # between the clocks of provider and studio
_LONGEST_KEY_ID = 256
_REASONS = {
    "iss": "It was issued by somebody else than the identity provider of this studio.",
    "aud": "It is meant for somebody else: its audience is not this studio.",
    "nbf": "It is not valid yet.",
    "iat": "It claims to be issued in the future.",
}


class SignedToken:
    """A token whose signature, issuer, audience and times are right."""

    def __init__(self, header: dict[str, Any], claims: dict[str, Any]) -> None:
        self.header = header
        self.claims = claims

    @property
    def subject(self) -> str:
        """Whom it is about; UNAUTHENTICATED if it does not say."""
        return self.text("sub")

    def text(self, claim: str) -> str:
        """Return a claim that must be there; UNAUTHENTICATED if it is not, or empty."""
        value = self.claims.get(claim)
        if not isinstance(value, str) or not value:
            refuse(f"It lacks the claim {claim}.")
        return value

    def optional_text(self, claim: str) -> str | None:
        """Return a claim that may be there."""
        value = self.claims.get(claim)
        return value if isinstance(value, str) and value else None

    def moment(self, claim: str) -> datetime:
        """Return a claim that is a time; UNAUTHENTICATED if it is none."""
        try:
            return datetime.fromtimestamp(self.claims[claim], UTC)
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            refuse(f"Its claim {claim} is no time.")


class TokenReader:
    """Reads tokens of one issuer."""

    def __init__(self, keys: KeyCache, *, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._clock = clock

    async def read(self, token: str, *, audience: str) -> SignedToken:
        """Return the token if its issuer signed it, for `audience`, and it is valid now; else UNAUTHENTICATED."""
        key_id, algorithm = _announced(token)
        key = await self._keys.key(key_id, algorithm)
        try:
            found = jwt.decode(token, key, algorithms=[algorithm])
        except (JoseError, ValueError, TypeError) as error:
            raise _refused("Its signature is wrong.") from error
        self._check(found.claims, audience)
        return SignedToken(found.header, found.claims)

    def _check(self, claims: dict[str, Any], audience: str) -> None:
        registry = JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError as error:
            raise _refused("It has expired. Get a new one.") from error
        except MissingClaimError as error:
            raise _refused(f"It lacks the claim {error.claim}.") from error
        except InvalidClaimError as error:
            raise _refused(_REASONS.get(error.claim, f"Its claim {error.claim} is not valid.")) from error


def _announced(token: str) -> tuple[str, str]:
    """Return key id and algorithm, as the header says before anything is checked."""
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError) as error:
        raise _refused("It is no signed token.") from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        refuse(f"Its algorithm is not accepted; these are: {', '.join(ALGORITHMS)}.")
    if "crit" in header:
        refuse("It demands an extension that is not known here.")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _LONGEST_KEY_ID:
        refuse("It does not name the key that it is signed with.")
    return key_id, str(algorithm)


def refuse(reason: str) -> NoReturn:
    """Raise UNAUTHENTICATED for a token."""
    raise _refused(reason)


def _refused(reason: str) -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, f"The token is refused. {reason}")

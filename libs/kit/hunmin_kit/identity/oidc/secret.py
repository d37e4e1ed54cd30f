"""The tokens of a login, as they are kept between its requests."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from hunmin_kit.identity.oidc.endpoint import unavailable


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """What the token endpoint gave. The access token is used once, and not kept."""

    access_token: str
    refresh_token: str
    id_token: str

    @classmethod
    def of(cls, answer: dict[str, Any], *, before: "TokenPair | None" = None) -> "TokenPair":
        """Read the endpoint's answer; what a renewal does not give anew stays as it was `before`."""
        held = {} if before is None else asdict(before)
        names = ("access_token", "refresh_token", "id_token")
        found = {name: answer.get(name) or held.get(name) for name in names}
        if not answer.get("access_token") or not all(isinstance(value, str) for value in found.values()):
            raise unavailable("It gave no access, refresh and ID token. Look at the client's settings there.")
        return cls(**{name: str(value) for name, value in found.items()})

    @classmethod
    def loads(cls, text: str) -> "TokenPair":
        """Read what `dumps` wrote."""
        return cls(access_token="", **json.loads(text))

    def dumps(self) -> str:
        """Return what is kept, as a text."""
        return json.dumps({"refresh_token": self.refresh_token, "id_token": self.id_token})

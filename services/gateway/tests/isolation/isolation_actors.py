"""Who calls. An actor is a name and what may be told to it of what is not its own; its header is the fixture's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """`refused` is what it is answered with; None: what is answered for an id that nobody has."""

    name: str
    refused: int | None = None

    def __str__(self) -> str:
        return self.name


OWNER = Actor("owner")
STRANGER = Actor("another account")
REVOKED = Actor("a revoked key of the same account", refused=401)
NOBODY = Actor("no key", refused=401)

INTRUDERS = [STRANGER, REVOKED, NOBODY]

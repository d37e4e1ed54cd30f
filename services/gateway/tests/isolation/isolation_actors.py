"""Who calls. An actor is a name and what may be told to it of what is not its own; its header is the fixture's."""

from collections.abc import Set
from dataclasses import dataclass

from hunmin_contracts.tenancy import SCOPES, Role, Scope


@dataclass(frozen=True)
class Actor:
    """Somebody who does not own a thing.

    `refused` is the status that it is answered with; None: it is answered as for an id that nobody has. `scopes` are
    its rights where it is of the same account, and has no business only where it lacks one; None: it never has any.
    """

    name: str
    refused: int | None = None
    scopes: Set[Scope] | None = None

    def __str__(self) -> str:
        return self.name

    def may(self, right: str | None) -> bool:
        """Tell whether it is no intruder at an operation that needs this right."""
        return self.scopes is not None and right in self.scopes


OWNER = Actor("owner")
STRANGER = Actor("another account")
REVOKED = Actor("a revoked key of the same account", refused=401)
NOBODY = Actor("no key", refused=401)
VIEWER = Actor("a viewer of the same account", refused=403, scopes=SCOPES[Role.VIEWER])
NEIGHBOUR = Actor("another project of the same account")  # of what belongs to a project

INTRUDERS = [STRANGER, REVOKED, NOBODY, VIEWER]

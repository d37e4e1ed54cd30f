"""Who calls. An actor is a name and its rights; its header is the fixture's."""

from collections.abc import Set
from dataclasses import dataclass

from hunmin_contracts.tenancy import SCOPES, Role

OPERATORS = "operator"  # the right of a route above all accounts, as the OpenAPI file says it


@dataclass(frozen=True)
class Actor:
    """Somebody who does not own a thing.

    `rights` are what its key has; None: it has no valid one. `is_inside`: it sees all that is the owner's, and is an
    intruder only where it lacks the right.
    """

    name: str
    rights: Set[str] | None
    is_inside: bool = False

    def __str__(self) -> str:
        return self.name

    def has(self, right: str | None) -> bool:
        """Tell whether its key has that right; None: everyone has it."""
        return right is None or (self.rights is not None and right in self.rights)

    def may(self, right: str | None) -> bool:
        """Tell whether it is no intruder at an operation that needs this right."""
        return right is not None and self.has(right) and (self.is_inside or right == OPERATORS)

    def refusal(self, right: str | None) -> int | None:
        """Return the status that it is answered with; None: as whoever asks for what nobody has."""
        if self.has(right):
            return None
        return 401 if self.rights is None else 403


OWNER = Actor("the owner of the account", SCOPES[Role.OWNER], is_inside=True)
ADMIN = Actor("an admin of the same account", SCOPES[Role.ADMIN], is_inside=True)
DEVELOPER = Actor("a developer of the same account", SCOPES[Role.DEVELOPER], is_inside=True)
VIEWER = Actor("a viewer of the same account", SCOPES[Role.VIEWER], is_inside=True)
STRANGER = Actor("the owner of another account", SCOPES[Role.OWNER])
OPERATOR = Actor("an operator of the server", SCOPES[Role.OWNER] | {OPERATORS})
REVOKED = Actor("a revoked key of the same account", None)
NOBODY = Actor("no key", None)
NEIGHBOUR = Actor("an admin of another project of the same account", SCOPES[Role.ADMIN])  # of what is in a project

INTRUDERS = [STRANGER, OPERATOR, REVOKED, NOBODY, VIEWER, DEVELOPER, ADMIN, OWNER]

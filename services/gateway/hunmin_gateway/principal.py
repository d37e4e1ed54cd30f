"""Who a request acts for, once its key or its session is known."""

from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ApiKeyId, BatchId, ProjectId, UserId
from hunmin_contracts.tenancy import KeyKind, Role, Scope


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The account and the project, and the key that speaks for them: a person's own, where no key was sent.

    One that `is_account_wide` sees all projects of the account, any other its own alone. `role` is the lowest that has
    the `scopes`. An account without limits pays nothing for quotas. Nothing has a default: none is made unchecked.

    `batch_id` is there where nobody waits: the request is a line of that batch, which this principal made.
    """

    account_id: AccountId
    project_id: ProjectId
    key_id: ApiKeyId
    user_id: UserId | None  # None: nobody in particular, a key
    role: Role
    kind: KeyKind
    scopes: frozenset[Scope]
    is_account_wide: bool
    is_operator: bool
    has_limits: bool
    batch_id: BatchId | None = None

    @property
    def visible_project_id(self) -> ProjectId | None:
        """The one project that it sees; None: every one of its account."""
        return None if self.is_account_wide else self.project_id

    def require_operator(self) -> None:
        """Raise PERMISSION_DENIED unless it is an operator of this server."""
        if not self.is_operator:
            raise HunminError(
                ErrorCode.PERMISSION_DENIED,
                "This is for operators of this server. Use a key made by `hunmin keys create NAME --operator`, or log "
                "in with the role operator.",
                scope="operator",
            )

    def require_account_wide(self) -> None:
        """Raise PERMISSION_DENIED if it sees one project alone."""
        if not self.is_account_wide:
            raise HunminError(
                ErrorCode.PERMISSION_DENIED,
                "This is about the whole account, and you act in one project of it. Use an account-wide key, or be a "
                "member of the account.",
                scope="account-wide",
            )

    def require(self, scope: Scope) -> None:
        """Raise PERMISSION_DENIED unless it has that right."""
        if scope not in self.scopes:
            raise HunminError(
                ErrorCode.PERMISSION_DENIED,
                f"This needs the scope {scope}, and you have: {', '.join(sorted(self.scopes)) or 'none'}. Use a key "
                "that has it, or ask an admin of your account for it.",
                scope=scope,
            )

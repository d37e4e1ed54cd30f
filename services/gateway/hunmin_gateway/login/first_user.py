"""The first user of a studio that has none: whoever opens the link that its start prints."""

from urllib.parse import urlencode

from hunmin_kit.data import Database
from hunmin_kit.identity.local import LocalUsers

from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT
from hunmin_gateway.login.pages import REGISTER_PATH
from hunmin_gateway.tenancy.accounts import Accounts

FIRST_ROLES = ("owner", "operator")


class FirstUser:
    """Makes a link at each start, as long as nobody has registered: only its digest is kept, so none is shown twice."""

    def __init__(self, database: Database, *, public_url: str | None) -> None:
        self._database = database
        self._public_url = public_url

    async def text(self, url: str) -> str | None:
        """Return what to print for a server at `url`."""
        async with self._database.session() as session:
            if not await Accounts(session).of_organizations([DEFAULT_ACCOUNT]):
                await Accounts(session).ensure(DEFAULT_ACCOUNT)  # else they would be a member of nothing
            secret = await LocalUsers(session).invite_first(organizations=[DEFAULT_ACCOUNT], roles=FIRST_ROLES)
        if secret is None:
            return None
        link = link_of(secret, self._public_url or url)
        return (
            f"Nobody has registered yet. The first user, who runs this studio, does so here, within a day:\n  {link}\n"
        )


def link_of(secret: str, url: str) -> str:
    """Return the address at which an invitation is accepted."""
    return f"{url.rstrip('/')}{REGISTER_PATH}?{urlencode({'token': secret})}"

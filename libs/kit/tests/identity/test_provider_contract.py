"""What every identity provider does alike, whoever knows the people."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity import IdentityProvider, Login, LoginStart
from hunmin_kit.identity.local import LocalUsers
from hunmin_kit.identity.local.tables import USERS
from hunmin_kit.identity.oidc import OidcProvider, OidcSettings
from hunmin_kit.testing import keycloak as real
from sqlalchemy import update

from .conftest import CALLBACK, register

Answer = dict[str, str]


@dataclass
class Place:
    """A provider, somebody whom it knows, and what can be done to them."""

    provider: IdentityProvider
    answer: Callable[[LoginStart], Awaitable[Answer]]  # logs them in; returns what their browser brings back
    lock_out: Callable[[], Awaitable[None]]
    give_role: Callable[[str], Awaitable[None]]

    async def log_in(self) -> Login:
        start = await self.provider.begin_login(callback=CALLBACK)
        return await self.provider.finish_login(start, await self.answer(start), callback=CALLBACK)


@asynccontextmanager
async def builtin(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    database, provider = request.getfixturevalue("database"), request.getfixturevalue("local")
    await register(database, provider, "a@example.org", "a good password", roles=["developer"])

    async def answer(start: LoginStart) -> Answer:
        return {"state": start.state, "email": "a@example.org", "password": "a good password"}

    async def lock_out() -> None:
        async with database.session() as session:
            await LocalUsers(session).set_disabled("a@example.org", disabled=True)

    async def give_role(role: str) -> None:
        async with database.session() as session:
            await session.execute(update(USERS).values(roles=[role]))

    yield Place(provider, answer, lock_out, give_role)


@asynccontextmanager
async def oidc(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    issuer, provider = request.getfixturevalue("issuer"), request.getfixturevalue("provider")

    async def answer(start: LoginStart) -> Answer:
        return issuer.code_for(start.url)

    async def lock_out() -> None:
        issuer.refresh_tokens.clear()

    async def give_role(role: str) -> None:
        issuer.claims = {"resource_access": {"hunmin": {"roles": [role]}}}

    yield Place(provider, answer, lock_out, give_role)


@asynccontextmanager
async def keycloak(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    with real.keycloak_realm(studio_url=CALLBACK.removesuffix("/auth/callback")) as realm:
        person = realm.person(roles=["developer"], organizations=["acme"])
        settings = OidcSettings(
            issuer=realm.issuer, client_id="hunmin", client_secret=realm.client_secret, audience="hunmin-api"
        )
        provider = OidcProvider(settings)

        async def answer(start: LoginStart) -> Answer:
            return (await real.sign_in(start.url, person))[0]

        async def lock_out() -> None:
            realm.admin.update_user(person.id, {"enabled": False})

        async def give_role(role: str) -> None:
            realm.set_roles(person, [role])

        yield Place(provider, answer, lock_out, give_role)
        await provider.aclose()


_REAL = [pytest.mark.skipif(not real.is_there(), reason=real.ABSENT), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(params=[builtin, oidc, pytest.param(keycloak, marks=_REAL)], ids=lambda made: made.__name__)
async def place(request) -> AsyncIterator[Place]:
    # The fixtures that a place needs are asynchronous too: they are made before it, in this loop.
    async with request.param(request) as made:
        yield made


@pytest.fixture(autouse=True)
def _made_first(database, local, issuer, provider) -> None:
    """Have the parts of places made."""


class TestEveryProvider:
    async def test_tells_the_same_of_who_logs_in(self, place):
        login = await place.log_in()
        identity = login.identity
        assert identity.issuer == place.provider.issuer
        assert (identity.organizations, identity.roles) == ({"acme"}, {"developer"})
        assert identity.subject
        assert identity.name
        assert identity.email
        assert identity.expires_at > datetime.now(UTC)
        assert (await place.log_in()).identity.subject == identity.subject

    async def test_takes_an_answer_to_its_own_login_alone(self, place):
        mine, theirs = [await place.provider.begin_login(callback=CALLBACK) for _ in range(2)]
        assert mine.state != theirs.state
        answer = await place.answer(theirs)
        for forged in (answer, {}, {"state": mine.state}, answer | {"state": ""}):
            with pytest.raises(HunminError) as refused:
                await place.provider.finish_login(mine, forged, callback=CALLBACK)
            assert refused.value.code in (ErrorCode.UNAUTHENTICATED, ErrorCode.INVALID_PARAMETER)

    async def test_renews_to_the_roles_of_now(self, place):
        login = await place.log_in()
        await place.give_role("viewer")
        renewed = await place.provider.renew(login)
        assert (renewed.identity.subject, renewed.identity.roles) == (login.identity.subject, {"viewer"})

    async def test_does_not_renew_who_is_locked_out(self, place):
        login = await place.log_in()
        await place.lock_out()
        with pytest.raises(HunminError) as refused:
            await place.provider.renew(login)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED

    async def test_does_not_renew_one_person_to_another(self, place):
        login = await place.log_in()
        other = dataclasses.replace(login, identity=dataclasses.replace(login.identity, subject="somebody-else"))
        with pytest.raises(HunminError) as refused:
            await place.provider.renew(other)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED

    async def test_accepts_no_token_that_nobody_signed(self, place):
        for token in ("", "hm_key", "a.b.c", "eyJhbGciOiJub25lIn0.e30."):
            with pytest.raises(HunminError) as refused:
                await place.provider.verify_bearer(token)
            assert refused.value.code is ErrorCode.UNAUTHENTICATED
            with pytest.raises(HunminError) as refused:
                await place.provider.verify_logout(token)
            assert refused.value.code is ErrorCode.INVALID_REQUEST

    async def test_says_where_to_log_out(self, place):
        url = await place.provider.logout_url(await place.log_in(), back_to="https://studio.example/")
        assert url is None or url.startswith(("https://", "http://"))

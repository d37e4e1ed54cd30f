"""Users of the studio's own: how they come, log in, are kept from guessing, and go."""

import asyncio
import time
import unicodedata

import pytest
from argon2 import PasswordHasher
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity.local import ISSUER, LocalChange, LocalUsers
from hunmin_kit.identity.local.attempts import FREE, LONGEST_LOCK_S
from hunmin_kit.identity.local.passwords import Passwords, check_choice
from sqlalchemy import text

from .conftest import register

PASSWORD = "나랏말싸미 듕귁에 달아"
EMAIL = "sejong@example.org"


async def log_in(local, email=EMAIL, password=PASSWORD):
    start = await local.begin_login(callback="")
    answer = {"state": start.state, "email": email, "password": password}
    return await local.finish_login(start, answer, callback="")


async def refused(local, **answer) -> HunminError:
    with pytest.raises(HunminError) as error:
        await log_in(local, **answer)
    return error.value


async def run(database, statement: str, **values: object) -> None:
    async with database.session() as session:
        await session.execute(text(statement), values)


class TestLogin:
    async def test_tells_who_somebody_is(self, database, local):
        await register(
            database, local, "Sejong@Example.org ", PASSWORD, roles=["owner"], organizations=["acme", "zeta"]
        )
        identity = (await log_in(local, email=" SEJONG@example.org")).identity
        assert (identity.issuer, identity.email, identity.name) == (ISSUER, EMAIL, "세종")
        assert (identity.organizations, identity.roles) == ({"acme", "zeta"}, {"owner"})
        assert identity.session_id is None

    async def test_a_password_is_the_same_however_it_is_composed(self, database, local):
        await register(database, local, EMAIL, unicodedata.normalize("NFC", PASSWORD))
        assert await log_in(local, password=unicodedata.normalize("NFD", PASSWORD))

    async def test_wrong_address_wrong_password_and_locked_out_look_alike(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        await register(database, local, "out@example.org", PASSWORD)
        async with database.session() as session:
            await LocalUsers(session).set_disabled("out@example.org", disabled=True)
        answers = [
            await refused(local, password="another password"),
            await refused(local, email="nobody@example.org"),
            await refused(local, email="out@example.org"),
            await refused(local, password=""),
            await refused(local, password="가" * 100_000),
        ]
        assert {(error.code, error.message) for error in answers} == {
            (ErrorCode.UNAUTHENTICATED, "The address or the password is wrong. Try again.")
        }

    async def test_an_unknown_address_costs_as_much_as_a_known_one(self):
        passwords = Passwords(PasswordHasher(4, 65536, 1))  # long enough to be measured on a busy machine
        stored = await passwords.hash(PASSWORD)

        async def fastest_s(found: str | None) -> float:
            times = []
            for _ in range(5):
                begun = time.perf_counter()
                assert not await passwords.verify("another password", found)
                times.append(time.perf_counter() - begun)
            return min(times)

        assert await fastest_s(None) > 0.5 * await fastest_s(stored)

    async def test_is_only_of_the_form_that_was_shown(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        start = await local.begin_login(callback="")
        with pytest.raises(HunminError, match="not that of this browser"):
            await local.finish_login(start, {"state": "x", "email": EMAIL, "password": PASSWORD}, callback="")

    async def test_a_weak_hash_is_made_anew(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        stronger = type(local)(
            database, form_path="/form", on_change=local._on_change, passwords=Passwords(PasswordHasher(2, 16, 1))
        )
        first = await log_in(stronger)
        async with database.session() as session:
            user = await LocalUsers(session).find(email=EMAIL)
        assert "m=16,t=2" in user.password_hash
        assert await stronger.renew(first)  # it is the same password: nobody is logged out

    async def test_nothing_is_stored_in_clear(self, database, local):
        async with database.session() as session:
            secret = await LocalUsers(session).invite("other@example.org", organizations=[], roles=[])
        await register(database, local, EMAIL, PASSWORD)
        async with database.session() as session:
            users = str((await session.execute(text("SELECT * FROM local_users"))).all())
            links = str((await session.execute(text("SELECT * FROM local_invitations"))).all())
        assert "$argon2id$" in users
        assert PASSWORD not in users
        assert secret not in links


class TestThrottling:
    async def test_after_some_failures_each_next_waits_longer(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        for _ in range(FREE):
            assert (await refused(local, password="a wrong guess")).code is ErrorCode.UNAUTHENTICATED
        assert (await refused(local, password="a wrong guess")).code is ErrorCode.UNAUTHENTICATED  # and locks
        waits = []
        for _ in range(10):
            locked = await refused(local)  # with the right password too
            assert locked.code is ErrorCode.OVERLOADED
            waits.append(locked.details["retry_after_s"])
            await run(database, "UPDATE local_attempts SET locked_until = now()")
            assert (await refused(local, password="a wrong guess")).code is ErrorCode.UNAUTHENTICATED
        assert waits[0] <= 3
        assert waits == sorted(waits)
        assert waits[-1] > LONGEST_LOCK_S / 2
        assert max(waits) <= LONGEST_LOCK_S + 1

    async def test_an_address_that_nobody_has_is_throttled_alike(self, local):
        codes = [(await refused(local, email="nobody@example.org")).code for _ in range(FREE + 2)]
        assert codes == [ErrorCode.UNAUTHENTICATED] * (FREE + 1) + [ErrorCode.OVERLOADED]

    async def test_guesses_at_the_same_time_are_counted(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        errors = await asyncio.gather(*(refused(local, password=f"guess number {n}") for n in range(30)))
        tried = [error for error in errors if error.code is ErrorCode.UNAUTHENTICATED]
        assert len(tried) == FREE + 1

    async def test_others_are_not_kept_waiting(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        for _ in range(FREE + 2):
            await refused(local, email="other@example.org")
        assert await log_in(local)

    async def test_a_login_forgives(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        for _ in range(3):
            for _ in range(FREE):
                await refused(local, password="a wrong guess")
            assert await log_in(local)

    async def test_failures_are_forgotten_after_a_day(self, database, local):
        await register(database, local, EMAIL, PASSWORD)
        for _ in range(FREE + 1):
            await refused(local, password="a wrong guess")
        await run(
            database,
            "UPDATE local_attempts SET last_at = now() - interval '25 hours', locked_until = now() - interval '1 hour'",
        )
        for _ in range(FREE):
            assert (await refused(local, password="a wrong guess")).code is ErrorCode.UNAUTHENTICATED


class TestChoice:
    @pytest.mark.parametrize(
        ("password", "reason"),
        [
            ("short", "10 to 256"),
            ("아홉글자비밀번호임", "10 to 256"),
            ("x" * 257, "10 to 256"),
            ("aaaaaaaaaaaa", "same few characters"),
            ("abababababab", "same few characters"),
            ("qwertyuiop", "everybody tries first"),
            ("Password12", "everybody tries first"),
            ("PASSWORD2026!", "everybody tries first"),
            ("대한민국2026!!", "everybody tries first"),
            ("sejong@example.org", "your address"),
        ],
    )
    def test_passwords_that_are_refused(self, password, reason):
        with pytest.raises(HunminError, match=reason) as error:
            check_choice(password, email="sejong@example.org")
        assert error.value.code is ErrorCode.INVALID_PARAMETER
        assert password not in error.value.message

    @pytest.mark.parametrize("password", ["correct horse battery", "열글자짜리비밀번호임", "x9!vKqL0@z"])
    def test_passwords_that_are_taken(self, password):
        check_choice(password, email="sejong@example.org")


class TestLinks:
    async def test_the_first_user_is_made_by_any_link_of_a_start(self, database, local):
        async with database.session() as session:
            links = [await LocalUsers(session).invite_first(organizations=["default"], roles=["owner"]) for _ in "ab"]
        assert links[0] != links[1]
        login = await local.accept(links[0], email="First@example.org", name=None, password=PASSWORD)
        assert login.identity.email == "first@example.org"
        assert login.identity.organizations == {"default"}
        for link in links:  # each is over, used or not
            with pytest.raises(HunminError, match="not valid") as error:
                await local.accept(link, email="second@example.org", name=None, password=PASSWORD)
            assert error.value.code is ErrorCode.NOT_FOUND
        async with database.session() as session:
            assert await LocalUsers(session).invite_first(organizations=[], roles=[]) is None

    async def test_of_two_who_open_them_at_once_one_is_the_first(self, database, local):
        async with database.session() as session:
            links = [await LocalUsers(session).invite_first(organizations=[], roles=["owner"]) for _ in range(4)]
        done = await asyncio.gather(
            *(
                local.accept(link, email=f"user{n}@example.org", name=None, password=PASSWORD)
                for n, link in enumerate(links)
            ),
            return_exceptions=True,
        )
        assert sum(not isinstance(one, HunminError) for one in done) == 1
        async with database.session() as session:
            assert len(await LocalUsers(session).list()) == 1

    async def test_an_invitation_is_for_its_address_alone(self, database, local):
        async with database.session() as session:
            secret = await LocalUsers(session).invite(EMAIL, organizations=["acme"], roles=["viewer"])
        login = await local.accept(secret, email="somebody@else.org", name=None, password=PASSWORD)
        assert (login.identity.email, login.identity.roles) == (EMAIL, {"viewer"})
        async with database.session() as session:
            with pytest.raises(HunminError, match="is a user") as error:
                await LocalUsers(session).invite(EMAIL, organizations=[], roles=[])
        assert error.value.code is ErrorCode.CONFLICT

    async def test_a_link_is_good_once_and_for_a_day(self, database, local):
        async with database.session() as session:
            secret = await LocalUsers(session).invite(EMAIL, organizations=[], roles=[])
        await run(database, "UPDATE local_invitations SET expires_at = now()")
        for link in (secret, "made-up", ""):
            with pytest.raises(HunminError, match="not valid"):
                await local.accept(link, email=EMAIL, name=None, password=PASSWORD)

    async def test_a_bad_choice_does_not_use_it_up(self, database, local):
        async with database.session() as session:
            secret = await LocalUsers(session).invite(EMAIL, organizations=[], roles=[])
        with pytest.raises(HunminError, match="Choose another password"):
            await local.accept(secret, email=EMAIL, name=None, password="qwertyuiop")
        assert await local.accept(secret, email=EMAIL, name=None, password=PASSWORD)

    async def test_a_link_for_another_password(self, database, local, changes):
        before = await register(database, local, EMAIL, PASSWORD)
        async with database.session() as session:
            links = [await LocalUsers(session).invite_to_reset(EMAIL) for _ in "ab"]
        after = await local.accept(links[0], email="", name=None, password="another password")
        assert after.identity.subject == before.identity.subject
        assert (await refused(local)).code is ErrorCode.UNAUTHENTICATED
        assert await log_in(local, password="another password")
        with pytest.raises(HunminError, match="not valid"):
            await local.accept(links[1], email="", name=None, password="a third password")
        assert changes == [(LocalChange.REGISTERED, EMAIL), (LocalChange.PASSWORD_CHANGED, EMAIL)]
        with pytest.raises(HunminError, match="ended"):
            await local.renew(before)


class TestChange:
    async def test_needs_the_password_of_now_and_ends_other_logins(self, database, local, changes):
        login = await register(database, local, EMAIL, PASSWORD)
        subject = login.identity.subject
        with pytest.raises(HunminError, match="wrong"):
            await local.change_password(subject, current="a guess", new="another password")
        with pytest.raises(HunminError, match="Choose another password"):
            await local.change_password(subject, current=PASSWORD, new="short")
        assert changes == [(LocalChange.REGISTERED, EMAIL)]
        changed = await local.change_password(subject, current=PASSWORD, new="another password")
        assert changes[1:] == [(LocalChange.PASSWORD_CHANGED, EMAIL)]
        assert await local.renew(changed)
        with pytest.raises(HunminError, match="ended"):
            await local.renew(login)
        assert await log_in(local, password="another password")

    async def test_who_is_locked_out_is_so_when_the_claims_are_looked_at(self, database, local):
        login = await register(database, local, EMAIL, PASSWORD)
        async with database.session() as session:
            await LocalUsers(session).set_disabled(EMAIL, disabled=True)
        with pytest.raises(HunminError, match="ended"):
            await local.renew(login)

"""From an identity to a principal: memberships, organisations and roles, and every way in which there is none."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import new_member_id, new_project_id
from hunmin_contracts.tenancy import SCOPES, KeyKind, Role, least_role
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.tables import Account, ApiKey, AuditEntry, Member, Project, User
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.principals import principal_of
from hunmin_kit.identity import Identity
from sqlalchemy import func, select, update

pytestmark = pytest.mark.asyncio(loop_scope="session")


def identity(subject: str, **claims) -> Identity:
    """Somebody; emails are their own, since tests share a database."""
    told = {
        "issuer": "https://id.example",
        "subject": subject,
        "email": f"{subject}@Example.com",
        "name": "훈민",
        "organizations": frozenset(),
        "roles": frozenset(),
        "session_id": None,
        "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return Identity(**told | claims)


@pytest.fixture
def somebody() -> str:
    return new_key()[3:20]


@pytest_asyncio.fixture(loop_scope="session")
async def place(studio):
    async with studio.parts.database.session() as session:
        name = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
        return name, await Accounts(session).ensure(name)


async def add(studio, table, **values) -> None:
    async with studio.parts.database.session() as session:
        session.add(table(**values))


async def ask(studio, who: Identity, wanted=None):
    async with studio.parts.database.session() as session:
        return await principal_of(session, studio.parts.events, who, wanted_project=wanted, request_id=None)


async def refused(studio, who: Identity, wanted=None) -> HunminError:
    with pytest.raises(HunminError) as refusal:
        await ask(studio, who, wanted)
    return refusal.value


class TestMembers:
    async def test_of_nothing_are_refused_and_told_how_they_are_known(self, studio, somebody):
        error = await refused(studio, identity(somebody))
        assert error.code is ErrorCode.PERMISSION_DENIED
        assert f"{somebody}@Example.com" in error.message

    @pytest.mark.parametrize("role", list(Role))
    async def test_by_email_have_the_role_that_they_were_invited_with(self, studio, place, somebody, role):
        email = f"{somebody}@example.com".lower()
        await add(studio, Member, id=new_member_id(), account_id=studio.account_id, email=email, role=role)
        principal = await ask(studio, identity(somebody))
        assert (principal.account_id, principal.project_id) == (studio.account_id, place[1].project_id)
        assert (principal.role, principal.scopes, principal.kind) == (role, SCOPES[role], KeyKind.CONSOLE)
        assert principal.is_account_wide
        assert not principal.is_operator
        assert await ask(studio, identity(somebody)) == principal
        async with studio.parts.database.session() as session:
            joined = select(AuditEntry).where(AuditEntry.account_id == studio.account_id)
            entries = (await session.scalars(joined.where(AuditEntry.action == "member.joined"))).all()
        (entry,) = [entry for entry in entries if entry.actor_id == principal.user_id]
        assert (entry.before["user_id"], entry.after["user_id"]) == (None, principal.user_id)

    async def test_of_a_project_alone_see_no_other(self, studio, place, somebody):
        projects = [new_project_id(), new_project_id()]
        for number, project_id in enumerate(projects):
            await add(studio, Project, id=project_id, account_id=studio.account_id, name=str(number), is_default=False)
        email = f"{somebody}@example.com".lower()
        where = {"account_id": studio.account_id, "project_id": projects[0]}
        await add(studio, Member, id=new_member_id(), email=email, role=Role.ADMIN, **where)
        principal = await ask(studio, identity(somebody))
        assert (principal.project_id, principal.is_account_wide) == (projects[0], False)
        assert (await refused(studio, identity(somebody), projects[1])).code is ErrorCode.NOT_FOUND
        assert (await refused(studio, identity(somebody), place[1].project_id)).code is ErrorCode.NOT_FOUND

    async def test_who_are_more_in_a_project_than_in_the_account_act_in_the_project_alone(self, studio, somebody):
        project_id = new_project_id()
        await add(studio, Project, id=project_id, account_id=studio.account_id, name="one", is_default=False)
        email = f"{somebody}@example.com".lower()
        for project, role in ((None, Role.VIEWER), (project_id, Role.ADMIN)):
            where = {"account_id": studio.account_id, "project_id": project}
            await add(studio, Member, id=new_member_id(), email=email, role=role, **where)
        there = await ask(studio, identity(somebody), project_id)
        assert (there.role, there.is_account_wide) == (Role.ADMIN, False)
        elsewhere = await ask(studio, identity(somebody))
        assert (elsewhere.role, elsewhere.is_account_wide) == (Role.VIEWER, True)

    async def test_are_not_taken_for_others_of_the_same_subject(self, studio, place, somebody):
        who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"viewer"}))
        first = await ask(studio, who)
        second = await ask(studio, replace(who, issuer="https://other.example"))
        assert first.user_id != second.user_id
        assert first.key_id != second.key_id


class TestOrganizations:
    async def test_are_accounts_and_the_highest_role_counts(self, studio, place, somebody):
        claims = {"organizations": frozenset({place[0], "unknown"}), "roles": frozenset({"viewer", "admin", "else"})}
        principal = await ask(studio, identity(somebody, **claims))
        assert (principal.account_id, principal.role) == (studio.account_id, Role.ADMIN)

    async def test_stay_with_their_account_whatever_its_name_becomes(self, studio, place, somebody):
        renamed = await studio.http.patch("/studio/v1/account", json={"name": f"another {new_key()}"})
        assert (renamed.status_code, renamed.json()["organization"]) == (200, place[0])
        who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"viewer"}))
        assert (await ask(studio, who)).account_id == studio.account_id

    async def test_that_have_no_account_do_not_fall_to_whoever_takes_their_name(self, studio, place, somebody):
        organization = f"organisation {new_key()}"
        renamed = await studio.http.patch("/studio/v1/account", json={"name": organization})
        assert (renamed.status_code, renamed.json()["name"]) == (200, organization)
        who = identity(somebody, organizations=frozenset({organization}), roles=frozenset({"owner"}))
        assert (await refused(studio, who)).code is ErrorCode.PERMISSION_DENIED

    async def test_do_not_come_to_a_new_account_of_the_name_that_theirs_had(self, studio, place, somebody):
        await studio.http.patch("/studio/v1/account", json={"name": f"another {new_key()}"})
        async with studio.parts.database.session() as session:
            taken = await Accounts(session).ensure(place[0])
            assert taken.account_id != studio.account_id
            assert (await Accounts(session).get(taken.account_id)).organization is None
        who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"viewer"}))
        assert (await ask(studio, who)).account_id == studio.account_id

    @pytest.mark.parametrize(("organizations", "roles"), [(True, set()), (True, {"operator"}), (False, {"owner"})])
    async def test_without_a_role_or_a_role_without_one_are_nothing(
        self, studio, place, somebody, organizations, roles
    ):
        named = frozenset({place[0]}) if organizations else frozenset()
        error = await refused(studio, identity(somebody, organizations=named, roles=frozenset(roles)))
        assert error.code is ErrorCode.PERMISSION_DENIED

    async def test_operator_is_a_role_above_them(self, studio, place, somebody):
        claims = {"organizations": frozenset({place[0]}), "roles": frozenset({"viewer", "operator"})}
        principal = await ask(studio, identity(somebody, **claims))
        assert principal.is_operator
        assert principal.role is Role.VIEWER


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (
                lambda account, _: update(Account).where(Account.id == account).values(suspended_at=func.now()),
                "account",
            ),
            (
                lambda account, _: update(Project).where(Project.account_id == account).values(archived_at=func.now()),
                "",
            ),
            (lambda _, subject: update(User).where(User.subject == subject).values(disabled_at=func.now()), ""),
        ],
    )
    async def test_of_what_is_suspended_archived_or_disabled(self, studio, place, somebody, change, code):
        who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"owner"}))
        await ask(studio, who)
        async with studio.parts.database.session() as session:
            await session.execute(change(studio.account_id, somebody))
        expected = ErrorCode.ACCOUNT_SUSPENDED if code else ErrorCode.FORBIDDEN
        assert (await refused(studio, who)).code is expected

    async def test_no_project_of_that_id(self, studio, place, somebody):
        who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"owner"}))
        assert (await refused(studio, who, new_project_id())).code is ErrorCode.NOT_FOUND


async def test_a_person_s_key_in_a_project_can_be_sent_by_nobody(studio, place, somebody):
    who = identity(somebody, organizations=frozenset({place[0]}), roles=frozenset({"owner"}))
    principal = await ask(studio, who)
    async with studio.parts.database.session() as session:
        found = await session.execute(select(ApiKey.prefix, ApiKey.scopes).where(ApiKey.id == principal.key_id))
        assert found.one() == ("", [])


@pytest.mark.parametrize("role", list(Role))
async def test_least_role_of_a_role_s_scopes_is_that_role(role):
    assert least_role(SCOPES[role]) is role

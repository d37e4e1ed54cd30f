"""A realm of its own in a real Keycloak, for tests: TEST_KEYCLOAK and TEST_KEYCLOAK_ADMIN say where it is.

The realm is made as an operator makes it, by `bootstrap`; its people and machines are made here.
"""

import html
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from keycloak import KeycloakAdmin

from hunmin_kit.identity.keycloak_realm import Administrator, RealmPlan, bootstrap

ABSENT = "TEST_KEYCLOAK is not set: `python e2e/servers/run.py COMMAND` starts one beside the command"
_START_S = 180.0  # that it may take on a busy machine, while tests that do not need it run
_STEPS = 2  # a realm with organisations asks for the name first, then for the password
_FORM = re.compile(r'<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"')


def is_there() -> bool:
    """Whether there is a Keycloak for tests."""
    return "TEST_KEYCLOAK" in os.environ


@cache
def server() -> tuple[str, Administrator]:
    """Return its address and its administrator, once it answers: it is started without anyone waiting for it."""
    url = os.environ["TEST_KEYCLOAK"]
    deadline = time.monotonic() + _START_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Keycloak at {url} (TEST_KEYCLOAK) does not answer after {_START_S:.0f} s.")
        time.sleep(0.2)
    user, _, password = os.environ["TEST_KEYCLOAK_ADMIN"].partition(":")
    return url, Administrator(user=user, password=password)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/realms/master", timeout=10, trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Person:
    """Somebody of a realm."""

    id: str
    name: str
    password: str


@dataclass(frozen=True)
class Machine:
    """A service account."""

    client_id: str
    secret: str


class KeycloakRealm:
    """A realm, with an administrator's rights on it."""

    def __init__(self, plan: RealmPlan, admin: KeycloakAdmin, client_secret: str) -> None:
        self.plan = plan
        self.admin = admin
        self.client_secret = client_secret
        self.issuer = f"{plan.server_url}/realms/{plan.realm}"
        self._client_number = str(admin.get_client_id(plan.client_id))

    def person(self, *, roles: Iterable[str] = (), organizations: Iterable[str] = (), verified: bool = True) -> Person:
        """Make a person."""
        name, password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        user_id = self.admin.create_user(
            {
                "username": name,
                "email": f"{name}@example.org",
                "emailVerified": verified,
                "firstName": "세종",
                "lastName": "이",
                "enabled": True,
                "credentials": [{"type": "password", "value": password, "temporary": False}],
            }
        )
        self._give(user_id, roles, organizations)
        return Person(user_id, name, password)

    def machine(
        self, *, roles: Iterable[str] = (), organizations: Iterable[str] = (), audience: str | None = None
    ) -> Machine:
        """Make a service account, whose tokens are for that audience; None: the studio's."""
        client_id, secret = f"machine-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        mapper = {
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.custom.audience": audience or self.plan.audience,
                "access.token.claim": "true",
                "id.token.claim": "false",
            },
        }
        number = self.admin.create_client(
            {
                "clientId": client_id,
                "secret": secret,
                "publicClient": False,
                "standardFlowEnabled": False,
                "serviceAccountsEnabled": True,
                "protocolMappers": [mapper],
            }
        )
        self._give(self.admin.get_client_service_account_user(number)["id"], roles, organizations)
        return Machine(client_id, secret)

    def set_roles(self, person: Person, roles: Iterable[str]) -> None:
        """Give a person these roles instead of those they have."""
        held = self.admin.get_client_roles_of_user(person.id, self._client_number)
        if held:
            self.admin.delete_client_roles_of_user(person.id, self._client_number, held)
        self._give(person.id, roles, ())

    def access_token(self, machine: Machine) -> str:
        """Return a token of a machine."""
        return str(self.tokens(machine)["access_token"])

    def tokens(self, machine: Machine) -> Mapping[str, Any]:
        """Return what the token endpoint gives to a machine."""
        form = {"grant_type": "client_credentials", "scope": "openid organization:*"}
        url = f"{self.issuer}/protocol/openid-connect/token"
        answer = httpx.post(url, data=form, auth=(machine.client_id, machine.secret), timeout=30, trust_env=False)
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()
        return found

    def add_key(self, *, priority: int) -> str:
        """Make a key that signs from now on; return its component's id."""
        realm_id = self.admin.get_realm(self.plan.realm)["id"]
        config = {"priority": [str(priority)], "enabled": ["true"], "active": ["true"], "keySize": ["2048"]}
        return self.admin.create_component(
            {
                "name": f"rsa-{priority}",
                "providerId": "rsa-generated",
                "providerType": "org.keycloak.keys.KeyProvider",
                "parentId": realm_id,
                "config": config | {"algorithm": ["RS256"]},
            }
        )

    def disable_key(self, component_id: str) -> None:
        """Take a key away: what it signed is not to be believed any more."""
        component = self.admin.get_component(component_id)
        component["config"] |= {"enabled": ["false"], "active": ["false"]}
        self.admin.update_component(component_id, component)

    def _give(self, user_id: str, roles: Iterable[str], organizations: Iterable[str]) -> None:
        if wanted := [self.admin.get_client_role(self._client_number, role) for role in roles]:
            self.admin.assign_client_role(user_id, self._client_number, wanted)
        for name in organizations:
            (found,) = self.admin.get_organizations({"search": name, "exact": True})
            self.admin.organization_user_add(user_id, found["id"])


@contextmanager
def keycloak_realm(*, studio_url: str, organizations: tuple[str, ...] = ("acme", "zeta")) -> Iterator[KeycloakRealm]:
    """Yield a fresh realm for a studio at that address."""
    server_url, administrator = server()
    plan = RealmPlan(
        server_url=server_url,
        realm=f"test-{secrets.token_hex(4)}",
        client_id="hunmin",
        client_secret=None,
        audience="hunmin-api",
        studio_urls=(studio_url,),
        backchannel_url=studio_url,
        callback="/auth/callback",
        logout="/auth/backchannel-logout",
        organizations=organizations,
    )
    made = bootstrap(plan, administrator)
    admin = _admin_of(plan, administrator)
    try:
        yield KeycloakRealm(plan, admin, made.client_secret)
    finally:
        admin.delete_realm(plan.realm)


def given_realm(issuer: str, administrator: Administrator, *, client_id: str = "hunmin") -> KeycloakRealm:
    """Return a realm that is there already, for the client of a studio that runs on it; its secret is not told."""
    server_url, _, name = issuer.partition("/realms/")
    plan = RealmPlan(
        server_url=server_url,
        realm=name,
        client_id=client_id,
        client_secret=None,
        audience="hunmin-api",
        studio_urls=(),
        backchannel_url="",
        callback="",
        logout="",
        organizations=(),
    )
    return KeycloakRealm(plan, _admin_of(plan, administrator), "")


def _admin_of(plan: RealmPlan, administrator: Administrator) -> KeycloakAdmin:
    admin = KeycloakAdmin(
        server_url=plan.server_url,
        username=administrator.user,
        password=administrator.password,
        realm_name="master",
        user_realm_name="master",
    )
    admin.change_current_realm(plan.realm)
    return admin


async def sign_in(url: str, person: Person) -> tuple[dict[str, str], httpx.Cookies]:
    """Log a person in at Keycloak's page `url`, as a browser does; return what it then brings to the studio.

    The cookies are Keycloak's session. They are `Secure`, which httpx takes to the letter, so they are kept by hand.
    """
    cookies = httpx.Cookies()

    async def keep(answer: httpx.Response) -> None:
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            cookies.set(name, value, domain="", path="/")

    fields = {"username": person.name, "password": person.password}
    async with httpx.AsyncClient(timeout=60, trust_env=False, event_hooks={"response": [keep]}) as http:
        answer = await http.get(url)
        for _ in range(_STEPS):
            form = _FORM.search(answer.text)
            if form is None:
                raise LookupError(f"Keycloak shows no form of login, but {answer.status_code}: {answer.text[:300]}")
            header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
            answer = await http.post(html.unescape(form[1]), data=fields, headers=header)
            if "location" in answer.headers:
                return dict(parse_qsl(urlsplit(answer.headers["location"]).query)), cookies
    raise LookupError("Keycloak asks again and again.")

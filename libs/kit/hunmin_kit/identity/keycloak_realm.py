"""Makes in a Keycloak what the studio needs of it: realm, organisations, the client with its roles and its audience.

What is there and as it should be is left alone, so a second run changes nothing; what else the realm holds is not
looked at. The only module that knows python-keycloak: at run time the provider is met by OpenID Connect alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from keycloak import KeycloakAdmin
from keycloak.exceptions import KeycloakConnectionError, KeycloakError, KeycloakGetError
from requests.exceptions import RequestException

ROLES = {
    "owner": "All of an account, its owners too",
    "admin": "An account's projects, members and keys",
    "developer": "Everything that is made in a project",
    "viewer": "Reads a project",
    "operator": "The studio itself, above all accounts",
}
_AUDIENCE_MAPPER = "audience of the studio"
_SCOPES = ("organization",)
_NOT_FOUND = 404


@dataclass(frozen=True, kw_only=True)
class RealmPlan:
    """What there is to be. `studio_urls` are where browsers reach the studio, `backchannel_url` is where Keycloak does.

    `callback` and `logout` are the paths there that Keycloak may send a browser to, and calls itself. A `client_secret`
    of None is as Keycloak makes it.
    """

    server_url: str
    realm: str
    client_id: str
    client_secret: str | None
    audience: str
    studio_urls: tuple[str, ...]
    backchannel_url: str
    callback: str
    logout: str
    organizations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Administrator:
    """Who may make it, in the realm `master`."""

    user: str
    password: str


@dataclass(frozen=True)
class Bootstrapped:
    """What was done, a line for each step, and the client's secret."""

    lines: list[str]
    client_secret: str


def bootstrap(plan: RealmPlan, administrator: Administrator) -> Bootstrapped:
    """Bring the realm to `plan`; UNAVAILABLE, or FORBIDDEN, with what Keycloak says if it cannot."""
    try:
        return _Bootstrap(plan, administrator).run()
    except (KeycloakConnectionError, RequestException) as error:
        raise HunminError(ErrorCode.UNAVAILABLE, f"Keycloak at {plan.server_url} cannot be reached.") from error
    except KeycloakError as error:
        code = ErrorCode.FORBIDDEN if error.response_code in (401, 403) else ErrorCode.UNAVAILABLE
        raise HunminError(code, f"Keycloak at {plan.server_url} refuses: {error.error_message!r}.") from error


class _Bootstrap:
    def __init__(self, plan: RealmPlan, administrator: Administrator) -> None:
        self._plan = plan
        self._lines: list[str] = []
        self._admin = KeycloakAdmin(
            server_url=plan.server_url,
            username=administrator.user,
            password=administrator.password,
            realm_name="master",
            user_realm_name="master",
        )

    def run(self) -> Bootstrapped:
        self._realm()
        self._admin.change_current_realm(self._plan.realm)
        number = self._client()
        self._mapper(number)
        self._scopes(number)
        self._roles(number)
        self._organizations(self._plan.organizations)
        return Bootstrapped(self._lines, self._admin.get_client_secrets(number)["value"])

    def _realm(self) -> None:
        plan, wanted = self._plan, {"enabled": True, "organizationsEnabled": True}
        try:
            found = self._admin.get_realm(plan.realm)
        except KeycloakGetError as error:
            if error.response_code != _NOT_FOUND:
                raise
            # Guesses of passwords are slowed down; http is left to installations that ask for it.
            fresh = {"realm": plan.realm, "bruteForceProtected": True, "sslRequired": "external"}
            self._admin.create_realm(wanted | fresh)
            self._did("created", f"realm {plan.realm}")
            return
        if changes := _differences(found, wanted):
            self._admin.update_realm(plan.realm, changes)
        self._did("changed" if changes else "kept", f"realm {plan.realm}")

    def _client(self) -> str:
        plan, name = self._plan, f"client {self._plan.client_id}"
        wanted = self._wanted_client()
        number = self._admin.get_client_id(plan.client_id)
        if number is None:
            number = self._admin.create_client({"clientId": plan.client_id, "name": "Hunmin Studio"} | wanted)
            self._did("created", name)
            return str(number)
        found = self._admin.get_client(number)
        changes = _differences(found, wanted)
        if changes:
            merged = changes | {"attributes": found.get("attributes", {}) | changes.get("attributes", {})}
            self._admin.update_client(number, found | merged)
        self._did("changed" if changes else "kept", name)
        return str(number)

    def _wanted_client(self) -> dict[str, Any]:
        plan = self._plan
        secret = {} if plan.client_secret is None else {"secret": plan.client_secret}
        return secret | {
            "enabled": True,
            "protocol": "openid-connect",
            "publicClient": False,
            "clientAuthenticatorType": "client-secret",
            "standardFlowEnabled": True,
            "implicitFlowEnabled": False,
            "directAccessGrantsEnabled": False,
            "serviceAccountsEnabled": False,
            "redirectUris": sorted(f"{url}{plan.callback}" for url in plan.studio_urls),
            "attributes": {
                "pkce.code.challenge.method": "S256",
                "post.logout.redirect.uris": "##".join(sorted(f"{url}/*" for url in plan.studio_urls)),
                "backchannel.logout.url": f"{plan.backchannel_url}{plan.logout}",
                "backchannel.logout.session.required": "true",
            },
        }

    def _mapper(self, number: str) -> None:
        config = {
            "included.custom.audience": self._plan.audience,
            "access.token.claim": "true",
            "id.token.claim": "false",
        }
        wanted = {
            "name": _AUDIENCE_MAPPER,
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": config,
        }
        mappers = {mapper["name"]: mapper for mapper in self._admin.get_mappers_from_client(number)}
        found = mappers.get(_AUDIENCE_MAPPER)
        name = f"audience {self._plan.audience}"
        if found is None:
            self._admin.add_mapper_to_client(number, wanted)
            self._did("created", name)
            return
        changes = _differences(found, wanted)
        if changes:
            self._admin.update_client_mapper(number, found["id"], found | wanted)
        self._did("changed" if changes else "kept", name)

    def _scopes(self, number: str) -> None:
        default = {scope["name"] for scope in self._admin.get_client_default_client_scopes(number)}
        optional = {scope["name"] for scope in self._admin.get_client_optional_client_scopes(number)}
        for name in _SCOPES:
            if name in default | optional:
                self._did("kept", f"scope {name}")
                continue
            scope = self._admin.get_client_scope_by_name(name)
            if scope is None:
                raise HunminError(
                    ErrorCode.CONFLICT, f"The realm has no client scope {name!r}. Keycloak 26 or newer is needed."
                )
            self._admin.add_client_optional_client_scope(number, scope["id"], {})
            self._did("created", f"scope {name}")

    def _roles(self, number: str) -> None:
        there = {role["name"] for role in self._admin.get_client_roles(number)}
        for name, description in ROLES.items():
            if name not in there:
                self._admin.create_client_role(number, {"name": name, "description": description})
            self._did("kept" if name in there else "created", f"role {name}")

    def _organizations(self, names: Iterable[str]) -> None:
        for name in names:
            found = self._admin.get_organizations({"search": name, "exact": True})
            if not found:
                self._admin.create_organization({"name": name, "alias": name, "enabled": True})
            self._did("kept" if found else "created", f"organization {name}")

    def _did(self, what: str, name: str) -> None:
        self._lines.append(f"{what:<8} {name}")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of `wanted` that `found` has not; a part that is an object may hold more than is wanted."""
    changes: dict[str, Any] = {}
    for name, value in wanted.items():
        there = found.get(name)
        if isinstance(value, dict):
            if inner := _differences(there or {}, value):
                changes[name] = inner
        elif (sorted(there or []) != value) if isinstance(value, list) else (there != value):
            changes[name] = value
    return changes

"""The same provider against a real Keycloak, in a realm that `hunmin identity init` made."""

import asyncio
import base64
import dataclasses
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from hashlib import sha256

import httpx
import pytest
import pytest_asyncio
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity.keycloak_realm import ROLES, Administrator, bootstrap
from hunmin_kit.identity.oidc import OidcProvider, OidcSettings
from hunmin_kit.testing import keycloak as real
from joserfc import jwt
from joserfc.jwk import KeySet

from .conftest import forged, rsa

STUDIO = "http://127.0.0.1:8080"
CALLBACK = f"{STUDIO}/auth/callback"
FRESH_S, MAX_STALE_S = 2.0, 6.0

pytestmark = [pytest.mark.skipif(not real.is_there(), reason=real.ABSENT), pytest.mark.timeout(300)]


class Cable(httpx.AsyncHTTPTransport):
    """The way to Keycloak, which can be cut: for the key set alone, or altogether."""

    cut: tuple[str, ...] = ()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if any(part in request.url.path for part in self.cut):
            raise httpx.ConnectError("cut", request=request)
        return await super().handle_async_request(request)


@pytest.fixture(scope="module")
def realm() -> Iterator[real.KeycloakRealm]:
    with real.keycloak_realm(studio_url=STUDIO) as made:
        yield made


@pytest.fixture(scope="module")
def machine(realm) -> real.Machine:
    return realm.machine(roles=["developer"], organizations=["acme", "zeta"])


@pytest.fixture
def cable() -> Cable:
    return Cable()


@pytest_asyncio.fixture
async def provider(realm, cable) -> AsyncIterator[OidcProvider]:
    settings = OidcSettings(
        issuer=realm.issuer,
        client_id="hunmin",
        client_secret=realm.client_secret,
        audience="hunmin-api",
        keys_fresh_s=FRESH_S,
        keys_max_stale_s=MAX_STALE_S,
    )
    oidc = OidcProvider(settings, transport=cable)
    yield oidc
    await oidc.aclose()


async def refusal(provider: OidcProvider, token: str, code: ErrorCode = ErrorCode.UNAUTHENTICATED) -> str:
    with pytest.raises(HunminError) as refused:
        await provider.verify_bearer(token)
    assert refused.value.code is code
    return refused.value.message


def claims_of(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def key_set(realm) -> dict:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        return (await http.get(f"{realm.issuer}/protocol/openid-connect/certs")).json()


async def log_in(provider, person):
    start = await provider.begin_login(callback=CALLBACK)
    answer, _ = await real.sign_in(start.url, person)
    return await provider.finish_login(start, answer, callback=CALLBACK)


class TestBootstrap:
    def test_a_second_run_changes_nothing(self, realm):
        user, _, password = os.environ["TEST_KEYCLOAK_ADMIN"].partition(":")
        again = bootstrap(realm.plan, Administrator(user=user, password=password))
        assert {line.split()[0] for line in again.lines} == {"kept"}
        assert len(again.lines) == 4 + len(ROLES) + len(realm.plan.organizations)
        assert again.client_secret == realm.client_secret

    def test_what_was_changed_is_mended_and_the_rest_left_alone(self, realm):
        number = realm.admin.get_client_id("hunmin")
        client = realm.admin.get_client(number)
        attributes = client["attributes"] | {"pkce.code.challenge.method": "plain", "of.the.operator": "kept"}
        realm.admin.update_client(number, client | {"implicitFlowEnabled": True, "attributes": attributes})
        user, _, password = os.environ["TEST_KEYCLOAK_ADMIN"].partition(":")
        lines = bootstrap(realm.plan, Administrator(user=user, password=password)).lines
        assert [line for line in lines if not line.startswith("kept")] == ["changed  client hunmin"]
        mended = realm.admin.get_client(number)
        assert mended["implicitFlowEnabled"] is False
        assert mended["attributes"]["pkce.code.challenge.method"] == "S256"
        assert mended["attributes"]["of.the.operator"] == "kept"

    def test_a_wrong_password_and_a_wrong_address_are_told(self, realm):
        with pytest.raises(HunminError, match="Invalid user credentials"):
            bootstrap(realm.plan, Administrator(user="admin", password="wrong"))
        nowhere = dataclasses.replace(realm.plan, server_url="http://127.0.0.1:9")
        with pytest.raises(HunminError, match="cannot be reached"):
            bootstrap(nowhere, Administrator(user="admin", password="wrong"))


class TestMachines:
    async def test_tell_organizations_and_roles(self, realm, provider, machine):
        identity = await provider.verify_bearer(realm.access_token(machine))
        assert identity.issuer == realm.issuer
        assert (identity.organizations, identity.roles) == ({"acme", "zeta"}, {"developer"})
        assert (identity.name, identity.session_id) == (f"service-account-{machine.client_id}", None)

    async def test_a_token_for_another_audience(self, realm, provider):
        other = realm.machine(roles=["owner"], audience="another-api")
        assert "audience" in await refusal(provider, realm.access_token(other))

    async def test_a_token_of_another_realm(self, realm, provider):
        with real.keycloak_realm(studio_url=STUDIO) as foreign:
            token = foreign.access_token(foreign.machine(roles=["owner"]))
        assert "no such key" in await refusal(provider, token)

    async def test_an_id_token(self, realm, provider, machine):
        token = realm.tokens(machine)["id_token"]
        assert "audience" in await refusal(provider, token)
        same = OidcSettings(
            issuer=realm.issuer, client_id="x", client_secret="x", audience=machine.client_id, keys_fresh_s=FRESH_S
        )  # even where its audience is right
        async with aclosing(OidcProvider(same)) as strict:
            assert "no access token" in await refusal(strict, token)

    async def test_one_that_says_it_is_not_signed(self, realm, provider, machine):
        claims = claims_of(realm.access_token(machine)) | {"sub": "somebody"}
        for algorithm in ("none", "None"):
            assert "algorithm is not accepted" in await refusal(provider, forged({"alg": algorithm}, claims))

    async def test_one_signed_with_the_public_key_as_a_secret(self, realm, provider, machine):
        token = realm.access_token(machine)
        (key,) = [key for key in KeySet.import_key_set(await key_set(realm)).keys if key.get("use") == "sig"]
        message = forged({"alg": "HS256", "typ": "JWT", "kid": key.kid}, claims_of(token)).rpartition(".")[0]
        signature = hmac.new(key.as_pem(private=False), message.encode(), sha256).digest()
        forgery = f"{message}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        assert "algorithm is not accepted" in await refusal(provider, forgery)

    async def test_one_that_somebody_else_signed(self, realm, provider, machine):
        claims = claims_of(realm.access_token(machine))
        own = rsa()
        header = {"alg": "RS256", "kid": own.kid}
        assert "no such key" in await refusal(provider, jwt.encode(header, claims, own))
        (kid,) = [key["kid"] for key in (await key_set(realm))["keys"] if key["use"] == "sig"]
        assert "signature is wrong" in await refusal(provider, jwt.encode(header | {"kid": kid}, claims, own))

    async def test_an_expired_one(self, realm, machine):
        settings = OidcSettings(issuer=realm.issuer, client_id="hunmin", client_secret="x", audience="hunmin-api")
        token = realm.access_token(machine)
        expires_at = claims_of(token)["exp"]
        for now, message in ((expires_at + 9, None), (expires_at + 11, "expired")):
            async with aclosing(OidcProvider(settings, clock=lambda now=now: now)) as later:
                if message is None:
                    assert await later.verify_bearer(token)
                else:
                    assert message in await refusal(later, token)


class TestPeople:
    async def test_log_in(self, realm, provider):
        person = realm.person(roles=["admin"], organizations=["acme"])
        identity = (await log_in(provider, person)).identity
        assert (identity.subject, identity.email) == (person.id, f"{person.name}@example.org")
        assert (identity.organizations, identity.roles) == ({"acme"}, {"admin"})
        assert identity.session_id

    async def test_belong_to_several_organizations_without_choosing_one(self, realm, provider):
        identity = (await log_in(provider, realm.person(organizations=["acme", "zeta"]))).identity
        assert identity.organizations == {"acme", "zeta"}

    async def test_an_address_that_was_not_proved_is_not_told(self, realm, provider):
        assert (await log_in(provider, realm.person(verified=False))).identity.email is None

    async def test_have_the_roles_of_now_when_claims_are_renewed(self, realm, provider):
        person = realm.person(roles=["owner"])
        login = await log_in(provider, person)
        realm.set_roles(person, ["viewer"])
        assert (await provider.renew(login)).identity.roles == {"viewer"}

    async def test_whose_session_was_ended_or_who_are_locked_out_are_not_renewed(self, realm, provider):
        ended, out = realm.person(), realm.person()
        logins = [await log_in(provider, person) for person in (ended, out)]
        realm.admin.user_logout(ended.id)
        realm.admin.update_user(out.id, {"enabled": False})
        for login in logins:
            with pytest.raises(HunminError, match="Log in again") as refused:
                await provider.renew(login)
            assert refused.value.code is ErrorCode.UNAUTHENTICATED

    async def test_are_logged_out_by_the_browser(self, realm, provider):
        person = realm.person()
        login = await log_in(provider, person)
        url = await provider.logout_url(login, back_to=f"{STUDIO}/")
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            answer = await http.get(url)
        assert (answer.status_code, answer.headers["location"]) == (302, f"{STUDIO}/")
        with pytest.raises(HunminError, match="Log in again"):
            await provider.renew(login)

    async def test_a_code_that_another_login_got_is_refused(self, realm, provider):
        person = realm.person()
        start, other = [await provider.begin_login(callback=CALLBACK) for _ in range(2)]
        answer, _ = await real.sign_in(start.url, person)
        with pytest.raises(HunminError, match="Log in again"):  # its verifier is another one
            await provider.finish_login(other, answer | {"state": other.state}, callback=CALLBACK)


class TestKeys:
    async def test_rotation_and_a_disabled_key(self, realm, provider, machine):
        old = realm.access_token(machine)
        assert await provider.verify_bearer(old)
        added = realm.add_key(priority=200)
        new = realm.access_token(machine)
        begun = time.monotonic()
        assert await provider.verify_bearer(new)  # at once, though another key was known a moment ago
        assert time.monotonic() - begun < FRESH_S + 3
        assert await provider.verify_bearer(old)
        realm.disable_key(added)
        await asyncio.sleep(FRESH_S)  # the documented time is what is tested
        assert "no such key" in await refusal(provider, new)
        assert await provider.verify_bearer(old)
        assert await provider.verify_bearer(realm.access_token(machine))

    async def test_the_key_set_is_down(self, realm, provider, machine, cable):
        known = realm.access_token(machine)
        assert await provider.verify_bearer(known)
        begun = time.monotonic()
        cable.cut = ("/certs",)
        await asyncio.sleep(FRESH_S)
        assert await provider.verify_bearer(known)
        added = realm.add_key(priority=300)
        unknown = realm.access_token(machine)
        assert "cannot be asked" in await refusal(provider, unknown, ErrorCode.UNAVAILABLE)
        await asyncio.sleep(max(0.0, begun + MAX_STALE_S - time.monotonic()))
        for token in (known, unknown):
            assert "cannot be asked" in await refusal(provider, token, ErrorCode.UNAVAILABLE)
        cable.cut = ()
        for token in (known, unknown):
            assert await provider.verify_bearer(token)
        realm.disable_key(added)

    async def test_everything_is_down_from_the_start(self, realm, provider, machine, cable):
        cable.cut = ("/",)
        token = realm.access_token(machine)
        assert "does not answer" in await refusal(provider, token, ErrorCode.UNAVAILABLE)
        with pytest.raises(HunminError, match="does not answer"):
            await provider.begin_login(callback=CALLBACK)

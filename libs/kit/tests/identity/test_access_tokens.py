"""Access tokens as an OpenID provider issues them, and as others would forge them."""

import base64
import dataclasses
import hmac
import time
from hashlib import sha256

import httpx
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity.oidc import OidcProvider
from joserfc.jwk import OctKey

from .conftest import SETTINGS, Issuer, forged, rsa


async def refusal(provider: OidcProvider, token: str) -> str:
    with pytest.raises(HunminError) as refused:
        await provider.verify_bearer(token)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED
    return refused.value.message


class TestGoodTokens:
    async def test_tell_who_somebody_is(self, issuer, provider):
        identity = await provider.verify_bearer(issuer.sign(issuer.access_claims()))
        assert (identity.issuer, identity.subject, identity.session_id) == (issuer.url, "user-1", "sid-1")
        assert (identity.name, identity.email) == ("세종", "sejong@example.org")
        assert identity.organizations == {"acme"}
        assert identity.roles == {"developer"}
        assert abs(identity.expires_at.timestamp() - time.time() - 300) < 5

    @pytest.mark.parametrize("number", [1, 2])
    async def test_may_be_signed_by_any_key_of_the_set(self, issuer, provider, some_keys, number):
        issuer.keys = [some_keys[0], some_keys[number]]
        assert (await provider.verify_bearer(issuer.sign(issuer.access_claims()))).subject == "user-1"

    @pytest.mark.parametrize(
        ("claim", "names"),
        [
            (["acme", "zeta"], {"acme", "zeta"}),
            ({"acme": {"id": "1"}, "zeta": {}}, {"acme", "zeta"}),
            ("acme", {"acme"}),
            ([], set()),
            (..., set()),
            ([1, None, ""], set()),
        ],
    )
    async def test_name_organizations_in_each_of_keycloaks_shapes(self, issuer, provider, claim, names):
        token = issuer.sign(issuer.access_claims(organization=claim))
        assert (await provider.verify_bearer(token)).organizations == names

    async def test_an_address_that_was_not_proved_is_nobodys(self, issuer, provider):
        for proved in (False, ..., "true"):
            token = issuer.sign(issuer.access_claims(email_verified=proved))
            assert (await provider.verify_bearer(token)).email is None

    async def test_roles_of_other_clients_and_of_the_realm_do_not_count(self, issuer, provider):
        roles = {"resource_access": {"other": {"roles": ["owner"]}}, "realm_access": {"roles": ["operator"]}}
        token = issuer.sign(issuer.access_claims(**roles))
        assert (await provider.verify_bearer(token)).roles == set()
        trusting = OidcProvider(
            dataclasses.replace(SETTINGS, realm_roles=True), transport=httpx.MockTransport(issuer.answer)
        )
        assert (await trusting.verify_bearer(token)).roles == {"operator"}

    async def test_may_name_their_kind_as_rfc_9068_does(self, issuer, provider):
        claims = issuer.access_claims(typ=..., azp=..., client_id="machine")
        assert (await provider.verify_bearer(issuer.sign(claims, typ="at+jwt"))).subject == "user-1"


class TestForgedTokens:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"aud": "somebody-else"}, "audience"),
            ({"aud": ["hunmin", "account"]}, "audience"),  # the client is not the API
            ({"aud": ...}, "lacks the claim aud"),
            ({"iss": "https://evil.example/realms/hunmin"}, "issued by somebody else"),
            ({"iss": "https://login.example/realms/hunmin/"}, "issued by somebody else"),
            ({"iss": ...}, "lacks the claim iss"),
            ({"exp": 1_000_000_000}, "expired"),
            ({"exp": ...}, "lacks the claim exp"),
            ({"exp": "tomorrow"}, "exp"),
            ({"exp": 1e300}, "exp"),
            ({"nbf": 4_000_000_000}, "not valid yet"),
            ({"iat": 4_000_000_000}, "in the future"),
            ({"iat": ...}, "lacks the claim iat"),
            ({"sub": ...}, "lacks the claim sub"),
            ({"sub": ""}, "lacks the claim sub"),
            ({"azp": ...}, "lacks the claim client_id"),
            ({"azp": 7}, "lacks the claim azp"),
            ({"typ": "ID"}, "no access token"),
            ({"typ": "Refresh"}, "no access token"),
            ({"typ": "Logout"}, "no access token"),
            ({"typ": ...}, "no access token"),
            ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ],
        ids=str,
    )
    async def test_wrong_claims(self, issuer, provider, changes, reason):
        assert reason in await refusal(provider, issuer.sign(issuer.access_claims(**changes)))

    @pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "HS256", "HS512", "EdDSA", "", None])
    async def test_algorithms_that_are_not_accepted(self, issuer, provider, algorithm):
        token = forged({"alg": algorithm, "kid": issuer.key.kid}, issuer.access_claims())
        assert "algorithm is not accepted" in await refusal(provider, token)
        assert issuer.reads == 0  # nobody is asked about such a token

    async def test_the_public_key_as_a_shared_secret(self, issuer, provider):
        public = issuer.key.as_pem(private=False)
        for secret in (public, public.strip()):
            unsigned = forged({"alg": "HS256", "typ": "JWT", "kid": issuer.key.kid}, issuer.access_claims())
            message = unsigned.rpartition(".")[0]
            signature = hmac.new(secret, message.encode(), sha256).digest()
            token = f"{message}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
            assert "algorithm is not accepted" in await refusal(provider, token)

    async def test_the_public_key_offered_as_a_shared_one(self, issuer, provider):
        shared = OctKey.import_key(b"0" * 32, {"kid": "shared", "use": "sig", "alg": "RS256"})
        issuer.keys.insert(0, shared)
        issuer.keys[0].as_dict = lambda private: {"kty": "oct", "kid": "shared", "k": "MDAw", "use": "sig"}
        token = forged({"alg": "RS256", "kid": "shared"}, issuer.access_claims(), b"0" * 32)
        assert "no such key" in await refusal(provider, token)

    async def test_a_key_of_the_same_name(self, issuer, provider, some_keys):
        other = some_keys[1]
        token = issuer.sign(issuer.access_claims(), key=other, kid=issuer.key.kid)
        assert "signature is wrong" in await refusal(provider, token)

    async def test_a_key_that_the_token_brings_along(self, issuer, provider, some_keys):
        other = some_keys[1]
        token = issuer.sign(issuer.access_claims(), key=other, kid=issuer.key.kid, jku="https://evil.example/certs")
        assert "signature is wrong" in await refusal(provider, token)
        token = issuer.sign(issuer.access_claims(), key=other, jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"})
        assert "no such key" in await refusal(provider, token)

    async def test_a_key_for_encryption(self, issuer, provider, some_keys):
        wrong = type(some_keys[1]).import_key(
            some_keys[1].as_dict(private=True) | {"use": "enc", "kid": "enc", "alg": "RSA-OAEP"}
        )
        issuer.keys.insert(0, wrong)
        signing = type(some_keys[1]).import_key(some_keys[1].as_dict(private=True) | {"kid": "enc"})
        assert "no such key" in await refusal(provider, issuer.sign(issuer.access_claims(), key=signing))

    @pytest.mark.filterwarnings("ignore:Key size:joserfc.errors.SecurityWarning")
    async def test_a_weak_key(self, issuer, provider):
        issuer.keys.append(rsa(1024))
        assert "no such key" in await refusal(provider, issuer.sign(issuer.access_claims()))

    async def test_a_key_under_another_algorithm(self, issuer, provider):
        token = forged({"alg": "PS256", "kid": issuer.key.kid}, issuer.access_claims(), b"x" * 256)
        assert "another algorithm" in await refusal(provider, token)

    async def test_changed_claims(self, issuer, provider):
        head, _, signature = issuer.sign(issuer.access_claims()).split(".")
        claims = forged({}, issuer.access_claims(sub="admin")).split(".")[1]
        assert "signature is wrong" in await refusal(provider, f"{head}.{claims}.{signature}")

    async def test_demands_and_no_key(self, issuer, provider):
        claims, key_id = issuer.access_claims(), issuer.key.kid
        assert "extension" in await refusal(provider, forged({"alg": "RS256", "kid": key_id, "crit": ["b64"]}, claims))
        for unnamed in (..., "", 7, "k" * 300):
            header = {"alg": "RS256"} | ({} if unnamed is ... else {"kid": unnamed})
            assert "does not name the key" in await refusal(provider, forged(header, claims))

    @pytest.mark.parametrize("token", ["..", "a.b.c", "e30.e30.", "안.녕.요", "." * 500, "eyJ.eyJ.eyJ", "e30.W10.e30"])
    async def test_what_is_no_token(self, provider, token):
        assert "The token is refused." in await refusal(provider, token)

    async def test_an_issuer_of_ones_own(self, provider, some_keys):
        evil = Issuer(keys=[some_keys[1]])  # says that it is ours
        assert "no such key" in await refusal(provider, evil.sign(evil.access_claims()))


class TestAuthorizedParties:
    async def test_are_all_that_the_provider_gives_the_audience(self, issuer, provider):
        assert await provider.verify_bearer(issuer.sign(issuer.access_claims(azp="machine")))

    async def test_can_be_named(self, issuer):
        settings = dataclasses.replace(SETTINGS, authorized_parties=frozenset(["machine"]))
        strict = OidcProvider(settings, transport=httpx.MockTransport(issuer.answer))
        for party in ("machine", "hunmin"):
            assert await strict.verify_bearer(issuer.sign(issuer.access_claims(azp=party)))
        assert "may not use this studio" in await refusal(strict, issuer.sign(issuer.access_claims(azp="other")))


class TestDescription:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"issuer": "https://evil.example"}, "calls itself"),
            ({"jwks_uri": ...}, "lacks a part"),
            ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ],
        ids=str,
    )
    async def test_that_is_not_the_settings_accepts_nobody(self, issuer, provider, changes, reason):
        issuer.metadata = changes
        with pytest.raises(HunminError, match=reason) as failed:
            await provider.verify_bearer(issuer.sign(issuer.access_claims()))
        assert failed.value.code is ErrorCode.UNAVAILABLE

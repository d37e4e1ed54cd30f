"""The code flow against a provider whose every part can be bent, and logout tokens."""

import dataclasses
import time
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.identity import Login
from hunmin_kit.identity.oidc import OidcProvider

from .conftest import CALLBACK, SETTINGS, Issuer


async def log_in(issuer: Issuer, provider: OidcProvider, **answer: str) -> Login:
    start = await provider.begin_login(callback=CALLBACK)
    return await provider.finish_login(start, issuer.code_for(start.url) | answer, callback=CALLBACK)


async def refusal(issuer: Issuer, provider: OidcProvider, expected=ErrorCode.UNAUTHENTICATED, **answer: str) -> str:
    with pytest.raises(HunminError) as refused:
        await log_in(issuer, provider, **answer)
    assert refused.value.code is expected
    return refused.value.message


class TestLogin:
    async def test_asks_with_state_nonce_and_a_challenge(self, issuer, provider):
        starts = [await provider.begin_login(callback=CALLBACK) for _ in range(2)]
        queries = [dict(parse_qsl(urlsplit(start.url).query)) for start in starts]
        for start, query in zip(starts, queries, strict=True):
            assert start.url.startswith(f"{issuer.url}/auth?")
            assert (query["client_id"], query["redirect_uri"]) == ("hunmin", CALLBACK)
            assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
            assert query["state"] == start.state
            assert {"openid", "organization:*"} <= set(query["scope"].split())
            for secret in start.secrets.values():
                assert len(secret) >= 43
            assert start.secrets["verifier"] not in start.url
        for name in ("state", "nonce", "code_challenge"):
            assert queries[0][name] != queries[1][name]

    async def test_tells_who_logged_in(self, issuer, provider):
        identity = (await log_in(issuer, provider)).identity
        assert (identity.subject, identity.organizations, identity.roles) == ("user-1", {"acme"}, {"developer"})
        assert identity.session_id == "sid-1"

    async def test_its_secret_holds_no_access_token(self, issuer, provider):
        login = await log_in(issuer, provider)
        assert "access_token" not in login.secret

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ({"state": "of-another-login"}, "does not belong"),
            ({"state": ""}, "does not belong"),
            ({"iss": "https://evil.example"}, "does not come from"),
            ({"error": "access_denied"}, "access_denied"),
            ({"code": ""}, "no code"),
            ({"code": "guessed"}, "Log in again"),
        ],
        ids=str,
    )
    async def test_answers_that_are_refused(self, issuer, provider, answer, reason):
        assert reason in await refusal(issuer, provider, **answer)

    async def test_an_answer_that_should_name_its_sender(self, issuer, provider):
        start = await provider.begin_login(callback=CALLBACK)
        answer = issuer.code_for(start.url)
        del answer["iss"]
        with pytest.raises(HunminError, match="does not come from"):
            await provider.finish_login(start, answer, callback=CALLBACK)

    async def test_a_code_is_good_once_and_with_its_own_verifier(self, issuer, provider):
        start = await provider.begin_login(callback=CALLBACK)
        answer = issuer.code_for(start.url)
        assert await provider.finish_login(start, answer, callback=CALLBACK)
        with pytest.raises(HunminError, match="Log in again"):
            await provider.finish_login(start, answer, callback=CALLBACK)
        other = await provider.begin_login(callback=CALLBACK)
        stolen = issuer.code_for(start.url) | {"state": other.state}
        with pytest.raises(HunminError, match="Log in again"):
            await provider.finish_login(other, stolen, callback=CALLBACK)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"nonce": "another"}, "nonce"),
            ({"nonce": ...}, "lacks the claim nonce"),
            ({"aud": "other"}, "audience"),
            ({"azp": "other"}, "another client"),
            ({"typ": "Bearer"}, "no ID token"),
            ({"iss": "https://evil.example"}, "issued by somebody else"),
            ({"exp": 1}, "expired"),
            ({"sub": "somebody-else"}, "do not belong together"),
        ],
        ids=str,
    )
    async def test_id_tokens_that_are_refused(self, issuer, provider, changes, reason):
        issuer.id_claims = changes
        assert reason in await refusal(issuer, provider)

    async def test_access_tokens_of_another_client_are_refused(self, issuer, provider):
        issuer.claims, issuer.id_claims = {"azp": "other"}, {"azp": "hunmin"}
        assert "do not belong together" in await refusal(issuer, provider)

    async def test_a_provider_that_is_away_or_refuses_the_studio(self, issuer, provider):
        start = await provider.begin_login(callback=CALLBACK)
        answer = issuer.code_for(start.url)
        issuer.is_away = True
        with pytest.raises(HunminError, match="does not answer") as failed:
            await provider.finish_login(start, answer, callback=CALLBACK)
        assert failed.value.code is ErrorCode.UNAVAILABLE
        issuer.is_away = False
        wrong = OidcProvider(
            dataclasses.replace(SETTINGS, client_secret="wrong"), transport=httpx.MockTransport(issuer.answer)
        )
        assert "status 401" in await refusal(issuer, wrong, ErrorCode.UNAVAILABLE)


class TestRenewal:
    async def test_brings_the_claims_of_now(self, issuer, provider):
        login = await log_in(issuer, provider)
        issuer.claims = {"resource_access": {"hunmin": {"roles": ["viewer"]}}}
        renewed = await provider.renew(login)
        assert renewed.identity.roles == {"viewer"}
        issuer.claims = {}
        assert (await provider.renew(renewed)).identity.roles == {"developer"}

    async def test_ends_with_the_providers_session(self, issuer, provider):
        login = await log_in(issuer, provider)
        issuer.refresh_tokens.clear()
        with pytest.raises(HunminError, match="Log in again") as refused:
            await provider.renew(login)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED

    async def test_is_of_the_same_person(self, issuer, provider):
        login = await log_in(issuer, provider)
        issuer.claims = {"sub": "somebody-else"}
        with pytest.raises(HunminError, match="do not belong together"):
            await provider.renew(login)


class TestLogout:
    async def test_sends_the_browser_to_end_the_providers_session(self, issuer, provider):
        login = await log_in(issuer, provider)
        url = await provider.logout_url(login, back_to="https://studio.example/")
        query = dict(parse_qsl(urlsplit(url).query))
        assert url.startswith(f"{issuer.url}/logout?")
        assert query["post_logout_redirect_uri"] == "https://studio.example/"
        assert query["id_token_hint"].count(".") == 2

    async def test_a_logout_token_names_session_and_subject(self, issuer, provider):
        ended = await provider.verify_logout(issuer.sign(issuer.logout_claims(), typ="logout+jwt"))
        assert (ended.issuer, ended.session_id, ended.subject) == (issuer.url, "sid-1", "user-1")
        assert abs(ended.told_at.timestamp() - time.time()) < 5

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"events": ...}, "no logout token"),
            ({"events": {}}, "no logout token"),
            ({"events": {"http://schemas.openid.net/event/backchannel-logout": "yes"}}, "no logout token"),
            ({"nonce": "n"}, "no logout token"),
            ({"sid": ..., "sub": ...}, "no logout token"),
            ({"aud": "other"}, "audience"),
            ({"iss": "https://evil.example"}, "issued by somebody else"),
            ({"exp": 1}, "expired"),
            ({"iat": 1000}, "too old"),
        ],
        ids=str,
    )
    async def test_logout_tokens_that_are_refused(self, issuer, provider, changes, reason):
        with pytest.raises(HunminError, match=reason) as refused:
            await provider.verify_logout(issuer.sign(issuer.logout_claims(**changes)))
        assert refused.value.code is ErrorCode.INVALID_REQUEST

    async def test_a_logout_token_of_another_key_is_refused(self, issuer, provider, some_keys):
        token = issuer.sign(issuer.logout_claims(), key=some_keys[1])
        with pytest.raises(HunminError, match="no such key"):
            await provider.verify_logout(token)

    async def test_no_token_passes_for_one_of_another_kind(self, issuer, provider):
        for claims in (issuer.id_token_claims("n"), issuer.access_claims(aud=["hunmin", "hunmin-api"])):
            with pytest.raises(HunminError, match="no logout token"):
                await provider.verify_logout(issuer.sign(claims))
        both = issuer.logout_claims(aud=["hunmin", "hunmin-api"], azp="hunmin")
        with pytest.raises(HunminError, match="no access token"):
            await provider.verify_bearer(issuer.sign(both))

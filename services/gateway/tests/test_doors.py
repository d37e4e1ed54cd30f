"""Paths and headers as nobody in good faith sends them: each ends at the key, at 404 or at 405, never in a crash."""

from collections.abc import Sequence

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYED = ["v1/models", "studio/v1/usage", "studio/v1/datasets", "tuning/v2/tasks", "info"]


async def bare(studio, method: str, raw_path: str, headers: Sequence[tuple[str, str | bytes]] = ()) -> httpx.Response:
    """Send a path as it is: no client mends it."""
    url = httpx.URL(studio.url).copy_with(raw_path=raw_path.encode())
    async with httpx.AsyncClient(timeout=10) as http:
        return await http.send(httpx.Request(method, url, headers=list(headers)))


@pytest.mark.parametrize(
    "form", ["/{}", "//{}", "/{}/", "/./{}", "/x/../{}", "/%2e/{}", "/{}%2f", "/{};x", "/{}%00", "/{}?key=x"]
)
async def test_no_spelling_of_a_path_goes_round_the_key(studio, form: str):
    for path in KEYED:
        answer = await bare(studio, "GET", form.format(path))
        assert answer.status_code in (401, 404), (path, answer.text)
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "get"])
async def test_no_other_method_goes_round_the_key(studio, method: str):
    for path in KEYED:
        answer = await bare(studio, method, f"/{path}")
        assert answer.status_code in (400, 401, 405), (path, answer.text)


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer",
        "Basic {key}",
        "{key}",
        "Bearer {key} {key}",
        "Bearer {key},Bearer x",
        "Bearer x, Bearer {key}",
        'Bearer "{key}"',
        "Bearer {key}é",
    ],
)
async def test_no_spelling_of_a_header_is_taken_for_a_key(studio, sent: str):
    value = sent.replace("{key}", studio.key).encode("latin-1")
    answer = await bare(studio, "GET", "/v1/models", [("authorization", value)])
    assert answer.status_code in (400, 401), answer.text


async def test_of_two_keys_the_first_alone_counts(studio):
    mine, wrong = ("authorization", f"Bearer {studio.key}"), ("authorization", "Bearer hm_wrong")
    assert (await bare(studio, "GET", "/v1/models", [wrong, mine])).status_code == 401
    assert (await bare(studio, "GET", "/v1/models", [mine, wrong])).status_code == 200


async def test_a_header_that_is_too_long_is_refused(studio):
    answer = await bare(studio, "GET", "/v1/models", [("authorization", "Bearer " + "x" * 200_000)])
    assert answer.status_code in (400, 401, 431)  # by the server, or by the key that it is not
    assert (await studio.http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/studio/v1/soft-prompts/{}",
        "/studio/v1/soft-prompts/{}/file",
        "/studio/v1/datasets/{}",
        "/v1/models/{}",
        "/v1/files/{}",
    ],
)
async def test_no_name_in_a_path_leads_elsewhere(studio, path: str):
    key = [("authorization", f"Bearer {studio.key}")]
    for name in ("%2e", "%2e%2e", "a%2Fb", "..%2fmodels", "%00", "poet@1%2Ffile", "x" * 3000):
        answer = await bare(studio, "GET", path.format(name), key)
        assert answer.status_code in (400, 404, 405), (name, answer.text)


@pytest.mark.parametrize("name", ["poet@1/file", "..", ".", "a/../b"])
async def test_no_name_in_a_body_leads_elsewhere(studio, name: str):
    """The answer at the path of poet's file is no description of a soft prompt, and was a crash."""
    body = {"inputs": "가", "parameters": {"adapter_id": name}}
    answer = await studio.http.post("/models/team/parrot/generate", json=body)
    assert answer.status_code == 404, answer.text

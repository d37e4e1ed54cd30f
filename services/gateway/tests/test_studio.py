"""The Studio dialect, the reference page, and what needs no key."""

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


CLOVA_PATHS = (
    "/v1/chat-completions/{model}",
    "/v3/chat-completions/{model}",
    "/v1/completions/{model}",
    "/v1/tasks/{task_id}/chat-completions",
    "/v2/tasks/{task_id}/chat-completions",
    "/v3/tasks/{task_id}/chat-completions",
    "/v1/tasks/{task_id}/completions",
    "/v2/tasks/{task_id}/completions",
    "/v1/api-tools/embedding/{model}",
    "/v1/api-tools/chat-tokenize/{model}",
    "/v3/api-tools/chat-tokenize/{model}",
    "/v1/api-tools/sliding/chat-messages/{model}",
)
PATHS = {
    "/auth/backchannel-logout",
    "/auth/callback",
    "/auth/login",
    "/auth/logout",
    "/auth/password",
    "/auth/password/change",
    "/auth/session",
    "/",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/files",
    "/v1/files/{file_id}",
    "/v1/files/{file_id}/content",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{job_id}",
    "/v1/fine_tuning/jobs/{job_id}/cancel",
    "/v1/fine_tuning/jobs/{job_id}/resume",
    "/v1/fine_tuning/jobs/{job_id}/pause",
    "/v1/fine_tuning/jobs/{job_id}/events",
    "/v1/fine_tuning/jobs/{job_id}/checkpoints",
    "/v1/batches",
    "/v1/batches/{batch_id}",
    "/v1/batches/{batch_id}/cancel",
    "/tuning/v2/tasks",
    "/tuning/v2/tasks/{task_id}",
    *(f"{app}{path}" for app in ("", "/testapp", "/serviceapp") for path in CLOVA_PATHS),
    "/v1/openai/models",
    "/v1/openai/models/{name}",
    "/v1/openai/completions",
    "/v1/openai/chat/completions",
    "/v1/openai/embeddings",
    "/studio/v1/models",
    "/studio/v1/datasets",
    "/studio/v1/datasets/{reference}",
    "/studio/v1/datasets/{reference}/report",
    "/studio/v1/datasets/{reference}/rows",
    "/studio/v1/tokenizers",
    "/studio/v1/tokenizers/{name}/encode",
    "/studio/v1/tokenizers/{name}/decode",
    "/studio/v1/tokenizers/{name}/count",
    "/studio/v1/tokenizers/{name}/morphemes",
    "/studio/v1/soft-prompts",
    "/studio/v1/soft-prompts/{reference}",
    "/studio/v1/soft-prompts/{reference}/file",
    "/studio/v1/soft-prompts/{reference}/peft",
    "/studio/v1/soft-prompts/{reference}/promote",
    "/studio/v1/soft-prompts/compare",
    "/studio/v1/tuning/jobs",
    "/studio/v1/tuning/jobs/{job_id}",
    "/studio/v1/tuning/jobs/{job_id}/cancel",
    "/studio/v1/tuning/jobs/{job_id}/metrics",
    "/studio/v1/tuning/jobs/{job_id}/events",
    "/studio/v1/batches",
    "/studio/v1/batches/{batch_id}",
    "/studio/v1/batches/{batch_id}/cancel",
    "/studio/v1/batches/{batch_id}/events",
    "/studio/v1/batches/{batch_id}/results.csv",
    "/studio/v1/tuning/preview",
    "/studio/v1/products",
    "/studio/v1/products/{name}",
    "/studio/v1/products/{name}/sample",
    "/studio/v1/score",
    "/studio/v1/gradients",
    "/studio/v1/usage",
    "/studio/v1/usage/summary",
    "/studio/v1/usage.csv",
    "/studio/v1/quotas",
    "/generate",
    "/generate_stream",
    "/info",
    "/health",
    "/models/{name}",
    "/models/{name}/generate",
    "/models/{name}/generate_stream",
    "/models/{name}/info",
    "/models/{name}/health",
    "/studio/v1/me",
    "/studio/v1/account",
    "/studio/v1/projects",
    "/studio/v1/projects/{project_id}",
    "/studio/v1/projects/{project_id}/archive",
    "/studio/v1/projects/{project_id}/restore",
    "/studio/v1/members",
    "/studio/v1/members/{member_id}",
    "/studio/v1/keys",
    "/studio/v1/keys/{key_id}",
    "/studio/v1/keys/{key_id}/revoke",
    "/studio/v1/keys/{key_id}/rotate",
    "/studio/v1/audit",
    "/studio/v1/operator/accounts",
    "/studio/v1/operator/accounts/{account_id}",
    "/studio/v1/operator/accounts/{account_id}/suspend",
    "/studio/v1/operator/accounts/{account_id}/resume",
    "/studio/v1/operator/accounts/{account_id}/limits",
    "/studio/v1/operator/accounts/{account_id}/limits/{limit_id}",
    "/studio/v1/operator/users",
    "/studio/v1/operator/users/{user_id}",
    "/studio/v1/operator/users/{user_id}/disable",
    "/studio/v1/operator/users/{user_id}/enable",
    "/studio/v1/operator/audit",
}


class TestModels:
    async def test_are_listed_with_what_a_prompt_encoder_must_know(self, studio):
        (info,) = (await studio.http.get("/studio/v1/models")).json()["models"]
        assert (info["name"], info["d_model"], info["embedding_std"]) == ("team/parrot", 8, 0.02)


class TestTokenizers:
    async def test_are_listed(self, studio):
        response = await studio.http.get("/studio/v1/tokenizers")
        assert [info["name"] for info in response.json()["tokenizers"]] == ["letters"]

    async def test_encode_decode_count_and_show_morphemes(self, studio):
        path = "/studio/v1/tokenizers/letters"
        words = "이 영화는 🙂"
        encoded = (await studio.http.post(f"{path}/encode", json={"text": words})).json()
        assert encoded["ids"] == list(map(ord, words))
        assert encoded["offsets"][0] == [0, 1]
        assert (await studio.http.post(f"{path}/decode", json={"ids": encoded["ids"]})).json() == {"text": words}
        assert (await studio.http.post(f"{path}/count", json={"texts": [words, ""]})).json() == {"counts": [7, 0]}
        tokens = (await studio.http.post(f"{path}/morphemes", json={"text": "영화"})).json()["tokens"]
        assert (tokens[0]["text"], tokens[0]["pos"]) == ("영화", "NNG")

    async def test_errors_are_problem_documents_with_the_request_id(self, studio):
        unknown = await studio.http.post("/studio/v1/tokenizers/none/encode", json={"text": "가"})
        problem = unknown.json()
        assert (unknown.status_code, problem["code"]) == (404, "not_found")
        assert problem["request_id"] == unknown.headers["x-request-id"]
        wrong = await studio.http.post("/studio/v1/tokenizers/letters/encode", json={"text": "가", "tokenizer": "x"})
        assert (wrong.status_code, wrong.json()["details"]["param"]) == (400, "tokenizer")

    async def test_need_a_key(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            for path in ("/studio/v1/tokenizers", "/studio/v1/usage"):
                assert (await http.get(path)).status_code == 401
            assert (await http.post("/studio/v1/tokenizers/letters/encode", json={"text": "가"})).status_code == 401


class TestReference:
    async def test_describes_every_route_with_its_key(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            document = (await http.get("/openapi.json")).json()
        assert set(document["paths"]) == PATHS
        (scheme,) = document["components"]["securitySchemes"].items()
        assert scheme[1]["scheme"] == "bearer"
        assert "HTTPValidationError" not in document["components"]["schemas"]  # FastAPI's own, which is never sent
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"]
                is_open = (method, path) == ("get", "/") or path.endswith("/health") or path.startswith("/auth/")
                rights = [right for one in operation.get("security", []) for right in one[scheme[0]]]
                assert len(rights) == (0 if is_open else 1), path

    async def test_page_loads_nothing_from_elsewhere(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            page = (await http.get("/docs")).text
            assert "cdn" not in page
            script = page.split('script src="')[1].split('"')[0]
            assert "javascript" in (await http.get(script)).headers["content-type"]

    async def test_root_says_where_to_go(self, studio):
        async with httpx.AsyncClient(base_url=studio.url) as http:
            about = (await http.get("/")).json()
            assert about["name"] == "Hunmin Studio"
            for link in (about["links"]["docs"], about["links"]["openapi"]):
                assert (await http.get(link)).status_code == 200

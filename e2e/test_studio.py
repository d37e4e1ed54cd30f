"""What is ours alone: tokenizers, and what needs no key."""

import httpx
import pytest

TEXTS = [
    "이 영화는 정말 재미있었다.",
    "  두 칸,\t탭,\n\n줄바꿈 ",
    "👨‍👩‍👧‍👦🇰🇷",
    "\u1100\u1161\u11a8 \u3131 \u11a8",  # decomposed Hangul and lone jamo
    "ㅋㅋㅋ ㅠㅠ",
    "Hello, 세계 123",
    "",
]


def test_tokenizers_round_trip_and_count(studio):
    with studio.http() as http:
        (name, *_) = [info["name"] for info in http.get("/studio/v1/tokenizers").json()["tokenizers"]]
        path = f"/studio/v1/tokenizers/{name}"
        counts = http.post(f"{path}/count", json={"texts": TEXTS}).json()["counts"]
        for text, count in zip(TEXTS, counts, strict=True):
            encoded = http.post(f"{path}/encode", json={"text": text}).json()
            assert len(encoded["ids"]) == len(encoded["offsets"]) == count
            assert http.post(f"{path}/decode", json={"ids": encoded["ids"]}).json()["text"] == text


def test_morphemes_name_their_part_of_speech(studio):
    with studio.http() as http:
        (name, *_) = [info["name"] for info in http.get("/studio/v1/tokenizers").json()["tokenizers"]]
        reply = http.post(f"/studio/v1/tokenizers/{name}/morphemes", json={"text": "영화는 재미있다"})
    tokens = reply.json()["tokens"]
    assert "".join(token["text"] for token in tokens) == "영화는 재미있다"
    assert {"NNG", "JX"} <= {token["pos"] for token in tokens}


def test_errors_are_problem_documents(studio):
    with studio.http() as http:
        unknown = http.post("/studio/v1/tokenizers/nothing/encode", json={"text": "가"})
        surrogate = http.post(
            "/studio/v1/tokenizers/nothing/encode",
            content=b'{"text": "\\ud83d"}',
            headers={"Content-Type": "application/json"},
        )
    assert (unknown.status_code, surrogate.status_code) == (404, 400)
    assert unknown.headers["content-type"] == "application/problem+json"
    assert unknown.json()["request_id"] == unknown.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/livez", "/readyz", "/metrics"])
def test_what_needs_no_key_is_served(studio, path):
    response = httpx.get(studio.url + path, timeout=30)
    assert response.status_code == 200

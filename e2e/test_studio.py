"""What is ours alone: tokenizers, and what needs no key."""

import httpx

TEXTS = [
    "이 영화는 정말 재미있었다.",
    "  두 칸,\t탭,\n\n줄바꿈 ",
    "👨‍👩‍👧‍👦🇰🇷",
    "\u1100\u1161\u11a8 \u3131 \u11a8",  # decomposed Hangul and lone jamo
    "ㅋㅋㅋ ㅠㅠ",
    "Hello, 세계 123",
    "",
]


def test_tokenizers_round_trip_count_and_know_morphemes(studio):
    with studio.http() as http:
        (name, *_) = [info["name"] for info in http.get("/studio/v1/tokenizers").json()["tokenizers"]]
        path = f"/studio/v1/tokenizers/{name}"
        counts = http.post(f"{path}/count", json={"texts": TEXTS}).json()["counts"]
        for text, count in zip(TEXTS, counts, strict=True):
            encoded = http.post(f"{path}/encode", json={"text": text}).json()
            assert len(encoded["ids"]) == len(encoded["offsets"]) == count
            assert http.post(f"{path}/decode", json={"ids": encoded["ids"]}).json()["text"] == text
        tokens = http.post(f"{path}/morphemes", json={"text": "영화는 재미있다"}).json()["tokens"]
        unknown = http.post("/studio/v1/tokenizers/nothing/encode", json={"text": "가"})
    assert "".join(token["text"] for token in tokens) == "영화는 재미있다"
    assert {"NNG", "JX"} <= {token["pos"] for token in tokens}
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    assert unknown.json()["request_id"] == unknown.headers["x-request-id"]


def test_what_needs_no_key_is_served(studio):
    for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/metrics"):
        assert httpx.get(studio.url + path, timeout=30).status_code == 200, path

"""Input gradients from outside: what a client gets, what it pays, and what is refused."""

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import httpx

PATH = "/studio/v1/gradients"
EXAMPLES = [
    {"template": "리뷰: {review}<|VIRTUAL_PROMPT_0|>", "fields": {"review": review}, "target": target}
    for review, target in (("재미있다", " 최고"), ("지루하고 길다", " 최악"))
]


def soft_prompt(width: int, *, rows: int = 3, value: float = 0.01) -> str:
    """A safetensors file, written by hand as its format says: a client needs no torch."""
    body = struct.pack(f"<{rows * width}f", *[value * (number % 7 - 3) for number in range(rows * width)])
    entry = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, len(body)]}
    header = json.dumps({"prompt_embeddings": entry}).encode()
    return base64.b64encode(struct.pack("<Q", len(header)) + header + body).decode()


def asked(studio, **fields) -> dict:
    return {"model": studio.model, "examples": EXAMPLES, "gradient_format": "json"} | fields


def width_of(http: httpx.Client, model: str) -> int:
    models = http.get("/studio/v1/models").json()["models"]
    return next(found["d_model"] for found in models if found["name"] == model)


def test_a_step_against_the_gradient_lowers_the_loss_and_is_metered(studio):
    with studio.http() as http:
        width = width_of(http, studio.model)
        response = http.post(PATH, json=asked(studio, soft_prompt=soft_prompt(width), saliency=True))
        assert response.status_code == 200, response.text
        before = response.json()
        start = struct.unpack(f"<{3 * width}f", base64.b64decode(soft_prompt(width))[-12 * width :])
        gradient = [number for row in before["gradient_rows"] for number in row]
        size = sum(number**2 for number in gradient) ** 0.5
        moved = [number - 0.05 * slope / size for number, slope in zip(start, gradient, strict=True)]
        head = base64.b64decode(soft_prompt(width))[: -12 * width]
        file = base64.b64encode(head + struct.pack(f"<{3 * width}f", *moved)).decode()
        after = http.post(PATH, json=asked(studio, soft_prompt=file)).json()
    assert after["loss"] < before["loss"]
    assert [token["id"] for token in before["examples"][0]["saliency"]][-3:] == [-1, -2, -3]
    row = next(row for row in studio.usage() if "req_" + response.headers["x-request-id"][4:] == row["request_id"])
    assert (row["backward_tokens"], row["status"]) == (before["usage"]["backward_tokens"], "succeeded")
    assert row["prompt_tokens"] == before["usage"]["prompt_tokens"]


def test_what_cannot_be_computed_is_refused_by_name_and_decode_goes_on(studio):
    with studio.http() as http, studio.client() as client, ThreadPoolExecutor() as pool:
        width = width_of(http, studio.model)
        busy = pool.submit(http.post, PATH, json=asked(studio, soft_prompt=soft_prompt(width), examples=EXAMPLES * 32))
        text = client.completions.create(model=studio.model, prompt="이 영화는", max_tokens=16, temperature=0)
        assert text.usage.completion_tokens > 0
        assert busy.result().status_code == 200
        for fields, param in (
            ({"soft_prompt": "no base64!"}, "soft_prompt"),
            ({"soft_prompt": soft_prompt(width + 1)}, "soft_prompt"),
            ({"soft_prompt": soft_prompt(width, value=float("nan"))}, "soft_prompt"),
            ({"soft_prompt": soft_prompt(width), "typo": 1}, "typo"),
            ({"examples": [{"tokens": [1] * 100_000, "target": [1]}]}, "examples.0"),
            ({"examples": [{"tokens": [1], "target": []}]}, "examples.0.target"),
            (
                {"examples": [{"tokens": [1], "target": [1]}], "candidates": {"positions": [9]}},
                "candidates.positions.0",
            ),
        ):
            refused = http.post(PATH, json=asked(studio, **fields))
            assert (refused.status_code, refused.json()["details"]["param"]) == (400, param)

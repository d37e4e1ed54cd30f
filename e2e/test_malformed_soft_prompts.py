"""Files from strangers: each malformed one is a 4xx that says why, costs little memory, and disturbs nobody else."""

import base64
import io
import json
import pickle
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

PATH = "/studio/v1/soft-prompts"
GRADIENTS = "/studio/v1/gradients"
TENSOR = "prompt_embeddings"
LARGE = 15 * 2**20  # bytes; a body may have 16 MiB
MOST = 700 * 2**10  # bytes of a file that is sent as base64 in JSON
NOISE = 4 * 2**20  # bytes by which a studio grows and shrinks while it serves
NAN, INFINITY = b"\0\0\xc0\x7f", b"\0\0\x80\xff"

File = Callable[[int], bytes]  # of the model's width


def file(header: Any, body: bytes = b"") -> bytes:
    """A safetensors file with this header, an object or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: list[Any], size: int, **changed: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, size]} | changed


def rows(width: int, body: bytes | None = None, **changed: Any) -> bytes:
    """Two rows, and what is changed of them."""
    content = bytes(2 * width * 4) if body is None else body
    return file({TENSOR: tensor([2, width], 2 * width * 4) | changed}, content)


def with_metadata(width: int, metadata: Any) -> bytes:
    return file({"__metadata__": metadata, TENSOR: tensor([2, width], 8 * width)}, bytes(8 * width))


def torch_save(size: int = 100) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({TENSOR: [1.0]}))
        archive.writestr("archive/data/0", bytes(size))
    return stream.getvalue()


MALFORMED: dict[str, File] = {
    "an empty file": lambda width: b"",
    "a length and nothing else": lambda width: struct.pack("<Q", 100),
    "text": lambda width: "이것은 파일이 아니다".encode() * 9,
    "plain JSON": lambda width: json.dumps({TENSOR: [[0.0] * width]}).encode(),
    "a pickle": lambda width: pickle.dumps({TENSOR: [[0.0] * width]}),
    "a pickle of protocol 0": lambda width: pickle.dumps({TENSOR: [[0.0] * width]}, protocol=0),
    "torch.save": lambda width: torch_save(),
    "torch.save, large": lambda width: torch_save(LARGE),
    "GGUF, large": lambda width: b"GGUF\x03\0\0\0" + bytes(LARGE),
    "npy": lambda width: b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}" + bytes(16),
    "HDF5": lambda width: b"\x89HDF\r\n\x1a\n" + bytes(1000),
    "gzip": lambda width: b"\x1f\x8b\x08" + bytes(1000),
    "random bytes, large": lambda width: bytes(range(255, -1, -1)) * (LARGE // 256),
    "cut off in the header": lambda width: rows(width)[:60],
    "cut off in the body": lambda width: rows(width)[:-1],
    "bytes behind the tensor": lambda width: rows(width) + b"\0",
    "zeros behind the tensor, large": lambda width: rows(width) + bytes(LARGE),
    "a header longer than any file": lambda width: b"\xff" * 8 + b"{}",
    "a header that is all of a large file": lambda width: file(b'{"a":"' + b"x" * LARGE + b'"}'),
    "a header nested without end": lambda width: file(b'{"a":' + b"[" * 100_000),
    "a header with an endless number": lambda width: file(b'{"a":' + b"1" * 100_000 + b"}"),
    "a header that is not UTF-8": lambda width: file(b'{"\xff":1}'),
    "a header that is a list": lambda width: file(b'{"a":1}'.replace(b'{"a":1}', b"[1,2,3]")),
    "no tensor": lambda width: file({}),
    "another tensor": lambda width: file({"weight": tensor([2, width], 8 * width)}, bytes(8 * width)),
    "a LoRA's tensors": lambda width: file(
        {f"base_model.lora_{k}": tensor([1], 4, data_offsets=[4 * n, 4 * n + 4]) for n, k in enumerate("AB")}, bytes(8)
    ),
    "one tensor more": lambda width: file(
        {TENSOR: tensor([2, width], 8 * width), "bias": tensor([1], 4, data_offsets=[8 * width, 8 * width + 4])},
        bytes(8 * width + 4),
    ),
    "two tensors in one place": lambda width: file(
        {TENSOR: tensor([2, width], 8 * width), "alias": tensor([2, width], 8 * width)}, bytes(8 * width)
    ),
    "a sparse tensor's parts": lambda width: file(
        {
            f"{TENSOR}.indices": tensor([2, 1], 16, dtype="I64"),
            f"{TENSOR}.values": tensor([1], 4, data_offsets=[16, 20]),
        },
        bytes(20),
    ),
    "the tensor named twice": lambda width: file(
        f'{{"{TENSOR}":{json.dumps(tensor([2, width], 8 * width))},"{TENSOR}":{{}}}}'.encode(), bytes(8 * width)
    ),
    "a layout besides": lambda width: rows(width, layout="torch.sparse_coo"),
    "dtype F64": lambda width: rows(width, dtype="F64"),
    "dtype I8": lambda width: rows(width, dtype="I8"),
    "dtype that is none": lambda width: rows(width, dtype=None),
    "one dimension": lambda width: rows(width, shape=[2 * width]),
    "three dimensions": lambda width: rows(width, shape=[1, 2, width]),
    "another width": lambda width: rows(width, shape=[4, width // 2]),
    "no rows": lambda width: rows(width, b"", shape=[0, width], data_offsets=[0, 0]),
    "negative rows": lambda width: rows(width, shape=[-2, width]),
    "more rows than numbers can count": lambda width: rows(width, shape=[2**64, width]),
    "a billion rows that are not there": lambda width: rows(
        width, shape=[10**9, width], data_offsets=[0, 4 * width * 10**9]
    ),
    "too many rows, large": lambda width: file(
        {TENSOR: tensor([LARGE // (4 * width), width], LARGE // (4 * width) * 4 * width)},
        bytes(LARGE // (4 * width) * 4 * width),
    ),
    "negative offsets": lambda width: rows(width, data_offsets=[-8 * width, 0]),
    "offsets the wrong way round": lambda width: rows(width, data_offsets=[8 * width, 0]),
    "offsets beyond the file": lambda width: rows(width, data_offsets=[0, 2**40]),
    "offsets over the header": lambda width: rows(width, data_offsets=[8, 8 * width + 8]),
    "NaN": lambda width: rows(width, NAN * (2 * width)),
    "one infinity": lambda width: rows(width, bytes(8 * width - 4) + INFINITY),
    "numbers that no model survives": lambda width: rows(width, struct.pack("<f", 3e38) * (2 * width)),
    "metadata of numbers": lambda width: with_metadata(width, {"hunmin": 1}),
    "a manifest that is no JSON": lambda width: with_metadata(width, {"hunmin": "{"}),
    "a manifest with code in it": lambda width: with_metadata(width, {"hunmin": '{"__reduce__": ["os.system", "x"]}'}),
    "a manifest of another model": lambda width: with_metadata(width, {"hunmin": '{"model_digest": "00"}'}),
    "a manifest of another tokenizer": lambda width: with_metadata(width, {"hunmin": '{"tokenizer_digest": "00"}'}),
    "a manifest whose slots do not add up": lambda width: with_metadata(width, {"hunmin": '{"slots": [1, 2]}'}),
    "a manifest whose template has no slot": lambda width: with_metadata(width, {"hunmin": '{"template": "{a}"}'}),
    "larger than a body may be": lambda width: bytes(17 * 2**20),
}


@dataclass
class Peak:
    """How many bytes one process of the studio grew while a block ran, at the most."""

    growth: int = 0


@contextmanager
def watched(process: Any) -> Iterator[Peak]:
    """Look at the studio's memory every millisecond, where it can be seen."""
    if process is None:
        yield Peak()
        return
    peak, before, ended = Peak(), process.memory(), threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            grown = (now - then for now, then in zip(process.memory(), before, strict=True))
            peak.growth = max(peak.growth, *grown)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def sent_within(process: Any, send: Callable[[], httpx.Response], size: int, name: str) -> httpx.Response:
    """Return what is answered to a body of `size` bytes, of which the studio may hold two copies.

    The least of three growths counts: what else a studio does meanwhile only adds to one.
    """
    growths: list[int] = []
    while not growths or (growths[-1] >= 2 * size + NOISE and len(growths) < 3):
        with watched(process) as peak:
            response = send()
        growths.append(peak.growth)
    assert min(growths) < 2 * size + NOISE, f"{name}: {growths} bytes for {size}"
    return response


@dataclass
class Neighbour:
    """Another user, who completes the same text again and again."""

    studio: Any
    answers: list[str] = field(default_factory=list)

    @contextmanager
    def working(self) -> Iterator[None]:
        ended = threading.Event()

        def work() -> None:
            with self.studio.client() as client:
                while not ended.is_set():
                    asked = {"model": self.studio.model, "prompt": "이 영화는", "temperature": 0, "max_tokens": 8}
                    self.answers.append(client.completions.create(**asked).choices[0].text)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until it was served `count` times more."""
        done, deadline = len(self.answers), time.monotonic() + 30
        while len(self.answers) < done + count:
            assert time.monotonic() < deadline, "the studio no longer serves others"
            time.sleep(0.01)


def width_of(studio: Any, http: httpx.Client) -> int:
    models = http.get("/studio/v1/models").json()["models"]
    return next(info["d_model"] for info in models if info["name"] == studio.model)


def sent(http: httpx.Client, model: str, content: bytes, name: str = "stranger") -> httpx.Response:
    return http.post(PATH, data={"name": name, "model": model}, files={"file": ("x.safetensors", content)})


def test_each_malformed_file_is_refused_and_disturbs_nobody(studio, process):
    neighbour = Neighbour(studio)
    with studio.http() as http, neighbour.working():
        width = width_of(studio, http)
        assert sent(http, studio.model, rows(width), "good").status_code == 201  # the list changes what is good
        neighbour.wait_for(3)
        with watched(process) as peak_of_all:
            for name, make in MALFORMED.items():
                content = make(width)
                response = sent_within(process, partial(sent, http, studio.model, content), len(content), name)
                problem = response.json()
                assert 400 <= response.status_code < 500, f"{name}: {problem}"
                assert problem["code"] in ("invalid_request", "too_large", "conflict", "invalid_parameter"), name
                assert len(problem["detail"]) > 20, f"{name}: {problem}"
        assert peak_of_all.growth < 2 * LARGE
        neighbour.wait_for(3)
        assert http.get(PATH, params={"name": "stranger"}).json()["data"] == []
        assert http.delete(f"{PATH}/good").status_code == 204
    assert len(MALFORMED) >= 30
    assert len(set(neighbour.answers)) == 1


@pytest.mark.parametrize("sent", ["in the JSON", "in a form"])
def test_each_malformed_tensor_is_refused_where_gradients_are_asked_for(studio, process, sent: str):
    """Where prompts are token ids, a file's template is not looked at."""
    neighbour = Neighbour(studio)
    tensors = {name: make for name, make in MALFORMED.items() if "template" not in name and "slots" not in name} | {
        "one NaN at the end of many": lambda width: file(
            {TENSOR: tensor([1000, width], 4000 * width)}, bytes(4000 * width - 4) + NAN
        ),
        "zeros behind the tensor, as many as fit": lambda width: rows(width) + bytes(MOST),
        "random bytes, as many as fit": lambda width: bytes(range(255, -1, -1)) * (MOST // 256),
        "more than fits": lambda width: rows(width) + bytes(LARGE * 2 // 3),
    }
    with studio.http() as http, neighbour.working():
        width = width_of(studio, http)
        neighbour.wait_for(3)
        for name, make in tensors.items():
            asked = {"model": studio.model, "examples": [{"tokens": [-1, -2, 3], "target": [4]}]}
            if sent == "in a form":
                form = {"data": {"request": json.dumps(asked)}, "files": {"soft_prompt": ("x", make(width))}}
                request = http.build_request("POST", GRADIENTS, **form)
            else:
                body = asked | {"soft_prompt": base64.b64encode(make(width)).decode()}
                request = http.build_request("POST", GRADIENTS, json=body)
            size = len(request.read())
            response = sent_within(process, partial(http.send, request), size, name)
            problem = response.json()
            assert 400 <= response.status_code < 500, f"{name}: {problem}"
            assert problem["code"] in ("invalid_request", "too_large", "conflict", "invalid_parameter"), name
            assert len(problem["detail"]) > 20, f"{name}: {problem}"
        neighbour.wait_for(3)
    assert len(set(neighbour.answers)) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"name": ""}, "name"),
        ({"model": "nothing"}, "no model"),
        ({"model": ""}, "model"),
        ({"template": "no slot"}, "slots none"),
        ({"template": "<|VIRTUAL_PROMPT_0|>{"}, "no field"),
        ({"template": "<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_0|>", "slots": "[1, 1]"}, "once"),
        ({"slots": "[1]"}, "take"),
        ({"slots": "[1.5]"}, "slots"),
        ({"slots": "{}"}, "slots"),
        ({"unknown": "x"}, "unknown"),
    ],
)
def test_what_is_wrong_around_a_good_file_is_named(studio, fields: dict[str, str], said: str):
    with studio.http() as http:
        form = {"name": "stranger", "model": studio.model} | fields
        content = rows(width_of(studio, http))
        response = http.post(PATH, data=form, files={"file": ("x.safetensors", content)})
        assert 400 <= response.status_code < 500
        assert said in response.json()["detail"]

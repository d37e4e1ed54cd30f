"""Files of soft prompts: ours come back bit for bit, everything else is refused before a tensor is built."""

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.soft_prompts import Manifest
from hunmin_contracts.tuning import MAX_VIRTUAL_TOKENS
from hunmin_modeling.soft_prompt import MAX_HEADER_BYTES, TENSOR, read_file, write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

D_MODEL = 8
ROWS = torch.linspace(-1, 1, 3 * D_MODEL).view(3, D_MODEL)
MANIFEST = Manifest(
    model_digest="ab" * 32, template="<|VIRTUAL_PROMPT_0|>리뷰: {review}", slots=[3], provenance={"만든 이": "훈민"}
)
GOOD = write_file(ROWS, MANIFEST)


def file_of(header: Any, body: bytes = bytes(96)) -> bytes:
    """A safetensors file with this header, as JSON or as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(**changed: Any) -> dict[str, Any]:
    return {TENSOR: {"dtype": "F32", "shape": [3, 8], "data_offsets": [0, 96]} | changed}


def saved(tensors: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_and_manifest_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    rows = ROWS.to(dtype)
    found = read_file(memoryview(write_file(rows, MANIFEST)), d_model=D_MODEL)
    assert found.rows.dtype == dtype
    assert torch.equal(found.rows, rows)
    assert (found.manifest, f"torch.{found.dtype}") == (MANIFEST, str(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_rows_and_manifest_are_the_same_bytes_and_any_reader_knows_them(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    provenance = {f"key {number}": str(number) for number in range(9)}
    backwards = dict(reversed(provenance.items()))
    files = {
        write_file(ROWS.to(dtype), MANIFEST.model_copy(update={"provenance": told}))
        for told in (provenance, backwards)
        for _ in range(20)
    }
    assert len(files) == 1
    (tmp_path / "file").write_bytes(files.pop())
    with safe_open(tmp_path / "file", "pt") as file:
        assert torch.equal(file.get_tensor(TENSOR), ROWS.to(dtype))
        assert file.metadata()["format"] == "pt"
        assert Manifest.model_validate_json(file.metadata()["hunmin"]).provenance == provenance


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 65504), ("float16", 65504), ("bfloat16", 65280)])
def test_the_largest_number_passes(dtype: str, largest: float) -> None:
    rows = torch.full((1, D_MODEL), -largest, dtype=getattr(torch, dtype))
    assert torch.equal(read_file(write_file(rows, Manifest()), d_model=D_MODEL).rows, rows)


def test_a_foreign_file_has_an_empty_manifest() -> None:
    found = read_file(save({TENSOR: ROWS}), d_model=D_MODEL)
    assert torch.equal(found.rows, ROWS)
    assert found.manifest == Manifest()


def test_rows_do_not_keep_the_upload_alive() -> None:
    content = bytearray(GOOD)
    rows = read_file(memoryview(content), d_model=D_MODEL).rows
    content[-96:] = bytes(96)
    assert torch.equal(rows, ROWS)


MALFORMED = {
    "empty": (b"", "too short"),
    "a length alone": (GOOD[:8], "too short"),
    "cut in the header": (GOOD[:40], "cut off"),
    "cut in the body": (GOOD[:-1], "damaged, or cut off"),
    "bytes behind the tensor": (GOOD + b"\0", "damaged"),
    "torch.save": (saved({TENSOR: ROWS}), "zip archive"),
    "pickle": (pickle.dumps({TENSOR: [1.0]}), "pickle"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(96), "GGUF"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(96), "NumPy"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(96), "HDF5"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(20), "gzip"),
    "JSON": (b'{"prompt_embeddings": [[1, 2]]}', "plain JSON"),
    "text": ("안녕하세요, 훈민정음".encode(), "not a safetensors file"),
    "header longer than the file": (b"\xff" * 7 + b"\x7f" + b"{}", "not as long"),
    "header that is no JSON": (file_of(b"{nothing}"), "not valid JSON"),
    "header that is not UTF-8": (file_of(b'{"\xff": 1}'), "not valid JSON"),
    "header nested without end": (file_of(b'{"a":' + b"[" * 100_000), "not valid JSON"),
    "header with an endless number": (file_of(b'{"a":' + b"1" * 100_000 + b"}"), "not valid JSON"),
    "no tensor": (file_of({}, b""), "tensors none"),
    "another tensor": (save({"weight": ROWS}), "tensors 'weight'"),
    "one tensor more": (save({TENSOR: ROWS, "word_embeddings": ROWS.clone()}), "'word_embeddings'"),
    "a sparse tensor's parts": (save({f"{TENSOR}.indices": ROWS, f"{TENSOR}.values": ROWS.clone()}), "indices"),
    "a tensor named twice": (file_of(b'{"prompt_embeddings":{},"prompt_embeddings":{}}'), "twice"),
    "a dtype named twice": (file_of(b'{"prompt_embeddings":{"dtype":"F32","dtype":"F16"}}'), "twice"),
    "an entry that is a list": (file_of({TENSOR: []}), "does not describe"),
    "an entry without a shape": (file_of({TENSOR: {"dtype": "F32", "data_offsets": [0, 96]}}), "does not describe"),
    "an entry with more": (file_of(entry(sparse=True)), "does not describe"),
    "dtype F64": (save({TENSOR: ROWS.double()}), "F64"),
    "dtype I32": (save({TENSOR: ROWS.int()}), "I32"),
    "dtype that is a number": (file_of(entry(dtype=1)), "dtype"),
    "one dimension": (save({TENSOR: ROWS.flatten()}), "1 dimensions"),
    "three dimensions": (save({TENSOR: ROWS[None]}), "3 dimensions"),
    "another width": (save({TENSOR: torch.ones(3, 16)}), "16 wide.*8 wide"),
    "no rows": (save({TENSOR: torch.ones(0, 8)}), "no rows"),
    "a negative shape": (file_of(entry(shape=[-3, 8])), "whole numbers"),
    "a shape of booleans": (file_of(entry(shape=[True, 8])), "whole numbers"),
    "a shape of fractions": (file_of(entry(shape=[3.0, 8.0])), "whole numbers"),
    "a shape beyond numbers": (file_of(entry(shape=[10**30, 8])), "whole numbers"),
    "a shape that is text": (file_of(entry(shape="3,8")), "whole numbers"),
    "negative offsets": (file_of(entry(data_offsets=[-96, 0])), "whole numbers"),
    "offsets the wrong way": (file_of(entry(data_offsets=[96, 0])), "damaged"),
    "offsets over the header": (file_of(entry(data_offsets=[8, 104])), "damaged"),
    "offsets beyond the body": (file_of(entry(data_offsets=[0, 192])), "damaged"),
    "three offsets": (file_of(entry(data_offsets=[0, 48, 96])), "damaged"),
    "NaN": (save({TENSOR: torch.full((3, 8), torch.nan)}), "NaN"),
    "one infinity": (save({TENSOR: torch.tensor([[0.0] * 7 + [-torch.inf]])}), "infinite"),
    "one NaN in bfloat16": (save({TENSOR: torch.tensor([[0.0] * 7 + [torch.nan]]).bfloat16()}), "NaN"),
    "one infinity in float16": (save({TENSOR: torch.tensor([[0.0] * 7 + [1e9]]).half()}), "infinite"),
    "numbers that no model survives": (save({TENSOR: torch.full((3, 8), -65536.0)}), "65504"),
    "the same in bfloat16": (save({TENSOR: torch.full((3, 8), 3e38).bfloat16()}), "65504"),
    "metadata of numbers": (file_of(entry() | {"__metadata__": {"hunmin": 1}}), "map of strings"),
    "metadata that is a list": (file_of(entry() | {"__metadata__": []}), "map of strings"),
    "a manifest that is no JSON": (save({TENSOR: ROWS}, {"hunmin": "{"}), "not a manifest"),
    "a manifest of unknown fields": (save({TENSOR: ROWS}, {"hunmin": '{"code": "x"}'}), "manifest .code"),
    "a manifest of empty slots": (save({TENSOR: ROWS}, {"hunmin": '{"slots": [0]}'}), "manifest .slots.0"),
    "a manifest that is no text": (file_of(entry() | {"__metadata__": {"hunmin": "\ud800"}}), "surrogate"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_with_its_fault(content: bytes, said: str) -> None:
    with pytest.raises(HunminError, match=said) as caught:
        read_file(content, d_model=D_MODEL)
    assert (caught.value.code, caught.value.details) == (ErrorCode.INVALID_REQUEST, {"param": "file"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (file_of(b"{" + b" " * MAX_HEADER_BYTES), "header is"),
        (file_of(entry(shape=[10**9, 8], data_offsets=[0, 32 * 10**9])), "1000000000 rows"),
        (save({TENSOR: torch.ones(MAX_VIRTUAL_TOKENS + 1, 8)}), "1025 rows"),
    ],
    ids=["header", "claimed rows", "rows"],
)
def test_what_is_too_large_is_refused_as_such(content: bytes, said: str) -> None:
    with pytest.raises(HunminError, match=said) as caught:
        read_file(content, d_model=D_MODEL)
    assert caught.value.code == ErrorCode.TOO_LARGE


def damaged() -> Iterator[st.SearchStrategy[bytes]]:
    places = st.integers(0, len(GOOD) - 1)
    yield st.tuples(places, st.integers(0, 255)).map(lambda at: GOOD[: at[0]] + bytes([at[1]]) + GOOD[at[0] + 1 :])
    yield st.tuples(places, st.binary(max_size=9)).map(lambda at: GOOD[: at[0]] + at[1] + GOOD[at[0] :])
    yield places.map(lambda at: GOOD[:at])
    yield st.binary(max_size=300)
    yield st.binary(max_size=200).map(file_of)


@settings(max_examples=400, deadline=None)
@given(st.one_of(*damaged()))
def test_whatever_is_done_to_a_file_it_is_read_or_refused(content: bytes) -> None:
    try:
        found = read_file(content, d_model=D_MODEL)
    except HunminError as error:
        assert error.status in (400, 413)  # noqa: PT017  # most inputs raise, some are still files
    else:
        assert found.rows.shape[1] == D_MODEL
        assert found.rows.isfinite().all()


@pytest.mark.parametrize(
    "rows",
    [torch.ones(3), torch.ones(0, 8), torch.ones(3, 8).double(), torch.full((3, 8), torch.inf)],
    ids=["shape", "none", "dtype", "infinite"],
)
def test_rows_that_would_not_be_read_are_not_written(rows: torch.Tensor) -> None:
    with pytest.raises(HunminError):
        write_file(rows, Manifest())

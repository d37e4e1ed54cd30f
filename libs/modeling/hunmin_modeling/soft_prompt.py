"""The file of a soft prompt: safetensors in PEFT's layout, its manifest in the metadata. It knows no registry.

The file comes from a stranger: the header is read and judged by hand before a tensor exists, so that nothing is
allocated for what will be refused. Format: https://github.com/huggingface/safetensors#format
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.soft_prompts import METADATA, TENSOR, Manifest
from hunmin_contracts.tuning import MAX_VIRTUAL_TOKENS
from pydantic import ValidationError
from torch import Tensor

MAX_MAGNITUDE = 65504.0  # float16's largest; an embedding's numbers are near 1, and a model makes NaN of huge ones
MAX_HEADER_BYTES = 2**18  # a template of 20,000 Hangul syllables takes a quarter of it

DtypeName = Literal["float32", "float16", "bfloat16"]


class _Dtype(NamedTuple):
    name: DtypeName
    torch: torch.dtype
    bits: type[np.unsignedinteger[Any]]
    magnitude: int  # the bits besides the sign
    largest: int  # those of MAX_MAGNITUDE, or of the number below it; bits of infinity and NaN are larger


_DTYPES = {
    "F32": _Dtype("float32", torch.float32, np.uint32, 0x7FFF_FFFF, 0x477F_E000),
    "F16": _Dtype("float16", torch.float16, np.uint16, 0x7FFF, 0x7BFF),
    "BF16": _Dtype("bfloat16", torch.bfloat16, np.uint16, 0x7FFF, 0x477F),
}
_CODE_OF = {dtype.torch: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 8  # of the rows in the file, by spaces behind the header
_PIECE = 2**16  # numbers looked at together
_LENGTH_BYTES = 8
_FOREIGN = {
    b"PK": "a zip archive, as torch.save writes it",
    b"\x80": "a pickle",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy file",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed with gzip",
    b"{": "plain JSON",
}
_REMEDY = f"Send a safetensors file with one tensor, {TENSOR} [n_virtual, d_model], such as PEFT's adapter_model."


@dataclass(frozen=True)
class SoftPromptRows:
    """The rows [n_virtual, d_model] of one version of a soft prompt, and the version's id, which never means others."""

    key: str
    rows: Tensor


class SoftPromptContent(NamedTuple):
    """What a file holds: rows [n_virtual, d_model] in the file's own dtype. A foreign file's manifest is empty."""

    rows: Tensor
    manifest: Manifest
    dtype: DtypeName


class SoftPromptLayout(NamedTuple):
    """What a file's header tells. `body` is the byte at which the rows begin."""

    n_virtual: int
    dtype: DtypeName
    manifest: Manifest
    body: int


def check_file(content: bytes | memoryview, *, d_model: int) -> SoftPromptLayout:
    """Read all that `read_file` reads but the rows, and refuse all that it refuses; no tensor is built, nothing copied.

    Raises `invalid_request` or `too_large`, which say what is wrong.
    """
    view = memoryview(content).cast("B")
    body = _LENGTH_BYTES + _header_length(view)
    header = _parsed(bytes(view[_LENGTH_BYTES:body]))
    metadata = header.pop("__metadata__", {})
    names = list(header)
    if names != [TENSOR]:
        shown = ", ".join(repr(name[:60]) for name in names[:4]) or "none"
        raise _refused(f"The file has the tensors {shown}{', …' if len(names) > 4 else ''}.")
    dtype, rows = _described(header[TENSOR], d_model, len(view) - body)
    manifest = _manifest(metadata)
    _check_numbers(view[body:], dtype)
    return SoftPromptLayout(rows, dtype.name, manifest, body)


def read_file(content: bytes | memoryview, *, d_model: int) -> SoftPromptContent:
    """Read the file of a soft prompt for a model of width `d_model`; `check_file` has the errors."""
    layout = check_file(content, d_model=d_model)
    # A copy of its own: torch wants memory that may be written, and the upload must not live as long as the rows.
    body = bytearray(memoryview(content).cast("B")[layout.body :])
    rows = torch.frombuffer(body, dtype=getattr(torch, layout.dtype)).view(layout.n_virtual, d_model)
    return SoftPromptContent(rows, layout.manifest, layout.dtype)


def write_file(rows: Tensor, manifest: Manifest) -> bytes:
    """Return the file of these rows [n_virtual, d_model], which `read_file` gives back bit for bit.

    The same rows and manifest give the same bytes. (safetensors' own writer shuffles the metadata.)
    """
    if rows.dtype not in _CODE_OF:
        raise _refused(f"The rows are {rows.dtype}, not one of {', '.join(dtype.name for dtype in _DTYPES.values())}.")
    if rows.dim() != 2 or rows.layout != torch.strided:
        raise _refused(f"The rows have the shape {list(rows.shape)}, not [n_virtual, d_model].")
    _check_count(rows.shape[0])
    if not (rows.detach().float().abs() <= MAX_MAGNITUDE).all():  # nor is NaN
        raise _diverged()
    body = rows.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    tensor = {"dtype": _CODE_OF[rows.dtype], "shape": list(rows.shape), "data_offsets": [0, len(body)]}
    metadata = {"format": "pt", METADATA: _json(manifest.model_dump(mode="json", exclude_defaults=True))}
    header = _json({"__metadata__": metadata, TENSOR: tensor}).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + body


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _refused(what: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_REQUEST, f"{what} {_REMEDY}", param="file")


def _header_length(view: memoryview) -> int:
    start = bytes(view[: _LENGTH_BYTES + 1])
    if len(start) <= _LENGTH_BYTES:
        raise _refused(f"The file is {len(view)} bytes long, too short for a header.")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES:] != b"{" or length > len(view) - _LENGTH_BYTES:
        known = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)
        if known is not None:
            raise _refused(f"The file is {known}, and that is never opened.")
        if start[_LENGTH_BYTES:] == b"{":
            raise _refused(f"The file is cut off, or its header is not as long as it says ({length} bytes).")
        raise _refused("The file is not a safetensors file.")
    if length > MAX_HEADER_BYTES:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"The file's header is {length} bytes long; at most {MAX_HEADER_BYTES} are read. Shorten its metadata.",
            param="file",
        )
    return length


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        # NaN and Infinity pass here, and no value of theirs passes later.
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise _refused("The file's header is not valid JSON in UTF-8.") from None
    if not isinstance(parsed, dict):
        raise _refused("The file's header is not an object.")
    return parsed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("The file's header names something twice.")
    return found


def _described(entry: Any, d_model: int, body_bytes: int) -> tuple[_Dtype, int]:
    """Check what the header says of the tensor, and return its dtype and number of rows."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refused(f"The file's header does not describe {TENSOR} by dtype, shape and data_offsets alone.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _refused(f"The tensor's dtype is {str(dtype)[:20]!r}, not one of {', '.join(_DTYPES)}.")
    if not _are_integers(shape) or not _are_integers(offsets):
        raise _refused("The tensor's shape and data_offsets are not both lists of whole numbers, 0 or more.")
    if len(shape) != 2:
        raise _refused(f"The tensor has {len(shape)} dimensions, not 2.")
    rows, width = shape
    if width != d_model:
        raise _refused(f"The rows are {width} wide, and the model is {d_model} wide: they are of another model.")
    _check_count(rows)
    size = rows * width * _DTYPES[dtype].torch.itemsize
    if offsets != [0, size] or body_bytes != size:
        raise _refused(
            f"The tensor takes {size} bytes, the header places it at {offsets[:4]}, and the body has {body_bytes}: "
            "the file is damaged, or cut off."
        )
    return _DTYPES[dtype], rows


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_count(rows: int) -> None:
    if rows < 1:
        raise _refused("The tensor has no rows.")
    if rows > MAX_VIRTUAL_TOKENS:
        raise HunminError(
            ErrorCode.TOO_LARGE,
            f"The tensor has {rows} rows; a soft prompt has at most {MAX_VIRTUAL_TOKENS}. Train a shorter one.",
            param="file",
        )


def _diverged() -> HunminError:
    return _refused(
        f"The tensor holds NaN, infinite numbers or some beyond ±{MAX_MAGNITUDE:.0f}. Its training diverged: train it "
        "again."
    )


def _check_numbers(body: memoryview, dtype: _Dtype) -> None:
    """Refuse NaN, infinity and what is near it, by the bits: numpy has no bfloat16, and torch would have to copy."""
    numbers = np.frombuffer(body, dtype=dtype.bits)
    for start in range(0, len(numbers), _PIECE):
        if ((numbers[start : start + _PIECE] & dtype.magnitude) > dtype.largest).any():
            raise _diverged()


def _manifest(metadata: Any) -> Manifest:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused("The file's metadata is not a map of strings.")
    text = metadata.get(METADATA)
    if text is None:
        return Manifest()
    try:
        return Manifest.model_validate_json(text.encode())
    except UnicodeEncodeError:
        raise _refused(f"The file's metadata entry {METADATA} holds a lone surrogate, which is no text.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:60]
        raise _refused(
            f"The file's metadata entry {METADATA} is not a manifest{f' ({place})' if place else ''}: {first['msg']}."
        ) from None

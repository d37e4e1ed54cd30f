"""The file of a soft prompt, as the studio takes it."""

from hunmin_contracts.soft_prompts import METADATA, TENSOR, Manifest
from safetensors.torch import save
from torch import Tensor, float64

_NO_MANIFEST = Manifest()


def soft_prompt_file(rows: Tensor, manifest: Manifest = _NO_MANIFEST) -> bytes:
    """Return rows [n_virtual, d_model] as safetensors in PEFT's layout, with the manifest in its metadata.

    Rows in float64 are kept in float32, the widest that the studio takes.
    """
    kept = rows.detach().cpu().contiguous()
    metadata = {"format": "pt", METADATA: manifest.model_dump_json(exclude_defaults=True)}
    file: bytes = save({TENSOR: kept.float() if kept.dtype == float64 else kept}, metadata=metadata)
    return file

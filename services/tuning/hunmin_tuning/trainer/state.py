"""The training's state, and its checkpoint: one safetensors file, replaced as a whole, that a resume goes on from.

No random number is drawn after the start and the order of rows is a function of the step, so neither is kept in it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from hunmin_tuning.trainer.job import write_whole

_METADATA = "hunmin"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps of each parameter


@dataclass
class Progress:
    """How far the training has come. `evaluated` is the last step with an evaluation, `waited` those since the best."""

    step: int = 0
    evaluated: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    waited: int = 0


class TrainingState:
    """What is trained and how far: `best` [n_virtual, d_model] is the soft prompt that is kept."""

    def __init__(self, encoder: nn.Module, optimizer: torch.optim.AdamW) -> None:
        """Begin at step 0 with a fresh encoder."""
        self.encoder = encoder
        self.optimizer = optimizer
        self.progress = Progress()
        with torch.no_grad():
            self.best: Tensor = encoder().detach().clone()

    def save(self, path: Path) -> None:
        """Replace the checkpoint."""
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": moments[name] for name in _MOMENTS}
        tensors["best"] = self.best
        # JSON keeps every float exactly; its Infinity is read back too.
        metadata = {_METADATA: json.dumps(asdict(self.progress))}
        content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata=metadata)
        write_whole(path, content)

    def load(self, content: bytes) -> None:
        """Go on from the content of a checkpoint of the same job."""
        length = int.from_bytes(content[:8], "little")  # safetensors: the length of a JSON header, and the header
        self.progress = Progress(**json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_METADATA]))
        tensors = load(content)
        own = {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
        self.encoder.load_state_dict(own)
        self.best = tensors["best"].to(self.best.device)
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                number, _, moment = rest.partition(".")
                moments.setdefault(int(number), {})[moment] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

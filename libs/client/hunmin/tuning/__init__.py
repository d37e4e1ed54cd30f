"""Train a prompt encoder on a laptop against a studio that keeps the model's weights to itself. Needs torch."""

try:
    import torch as _torch  # noqa: F401  only to say what to install
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("hunmin.tuning needs torch: install `hunmin[tuning]`.", name="torch") from missing

from hunmin.tuning.encoders import LstmPromptEncoder, MlpPromptEncoder
from hunmin.tuning.file import soft_prompt_file
from hunmin.tuning.loss import PromptLoss

__all__ = ["LstmPromptEncoder", "MlpPromptEncoder", "PromptLoss", "soft_prompt_file"]

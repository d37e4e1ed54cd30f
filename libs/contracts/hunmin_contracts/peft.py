"""PEFT's description of an adapter folder, `adapter_config.json`, as far as soft prompts need it.

Field names and values are PEFT's own (https://huggingface.co/docs/peft, PromptTuningConfig and PromptEncoderConfig).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hunmin_contracts.errors import ErrorCode, HunminError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
NOTE_FILE = "README.md"  # ours, beside an adapter whose template PEFT does not apply


class AdapterConfig(BaseModel):
    """An adapter that is rows before the prompt: prompt tuning, or p-tuning, whose encoder PEFT leaves behind.

    Other fields of PEFT's are let through: they tell how it was trained.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, protected_namespaces=())

    peft_type: Literal["PROMPT_TUNING", "P_TUNING"]
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    num_virtual_tokens: int = Field(ge=1)
    token_dim: int | None = Field(default=None, ge=1)
    num_transformer_submodules: Literal[1] | None = 1
    base_model_name_or_path: str | None = Field(default=None, max_length=1000)
    inference_mode: bool = True

    def check(self, *, n_virtual: int, d_model: int) -> None:
        """Raise `invalid_parameter` unless a file of that shape is this adapter's."""
        if self.num_virtual_tokens != n_virtual or self.token_dim not in (None, d_model):
            raise HunminError(
                ErrorCode.INVALID_PARAMETER,
                f"The adapter's configuration tells of {self.num_virtual_tokens} rows of width {self.token_dim}, and "
                f"the file has {n_virtual} of width {d_model}: they belong to two adapters.",
                param="config",
            )


def adapter_of(*, n_virtual: int, d_model: int, base_model: str | None) -> AdapterConfig:
    """Describe rows that PEFT is to put before the prompt as they are."""
    return AdapterConfig(
        peft_type="PROMPT_TUNING",
        num_virtual_tokens=n_virtual,
        token_dim=d_model,
        base_model_name_or_path=base_model,
    )

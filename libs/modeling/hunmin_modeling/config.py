"""What a model is, read from the config.json of a checkpoint: one shape for every family that we serve.

The names are those of transformers' configurations, and so are the defaults of what a file leaves out; but a family
with rotary positions must say its sizes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

# Those whose output the truth test compares with `generate`. Another may hold what our attention leaves out
# (sliding windows, ALiBi, soft caps), and would answer wrongly.
MODEL_TYPES = frozenset({"gpt2", "gpt_neox", "hyperclovax", "llama"})
# Rotary kinds whose angles depend on the length of the batch mix sequences that have nothing to do with each other.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

# What would be computed otherwise than we do, and is not known to be otherwise by its tensors.
_REFUSED_KEYS = ("quantization_config", "per_layer_config", "transformers_weights")

Activation = Literal["gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]


class RopeParameters(BaseModel):
    """How rotary embeddings turn; what each kind of scaling needs (`rope_parameters`, formerly `rope_scaling`)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    rope_type: str = Field("default", validation_alias=AliasChoices("rope_type", "type"))
    rope_theta: float = 10_000.0
    partial_rotary_factor: float = 1.0
    original_max_position_embeddings: int | None = None
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> "RopeParameters":
        if self.rope_type not in ROPE_TYPES:
            raise ValueError(f"rotary type {self.rope_type} is not one of {', '.join(sorted(ROPE_TYPES))}")
        needed = {"default": (), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
        missing = set(needed.get(self.rope_type, ("factor",))) - self.model_fields_set
        if missing:
            raise ValueError(f"rotary type {self.rope_type} needs {', '.join(sorted(missing))}")
        return self


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder. `rope` None: it learns its positions. `attention_scaling`: a factor for each layer."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    activation: Activation
    norm_eps: float
    attention_scaling: tuple[float, ...]
    tie_word_embeddings: bool
    eos_token_id: int | list[int] | None
    rope: RopeParameters | None = None
    attention_bias: bool = True
    mlp_bias: bool = True
    is_gated: bool = False  # the activation's output is a factor of a second projection
    is_rms_norm: bool = False
    is_parallel: bool = False  # attention and the MLP read the same hidden states
    has_post_norm: bool = False  # a norm after each of both, too
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a head that cannot turn in pairs."""
        if self.rope is not None and self.rotary_width % 2:
            raise ValueError(f"{self.rotary_width} numbers of a head do not turn in pairs")

    @property
    def rotary_width(self) -> int:
        """How many of a head's numbers turn with the position."""
        return 0 if self.rope is None else int(self.head_dim * self.rope.partial_rotary_factor)


class _Family(BaseModel):
    """What config.json says in every family; unknown keys tell of training or of other heads."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] | None = 2

    @property
    def width(self) -> int:
        """The width of a head; ValueError if there is none."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"a width of {self.hidden_size} is not a multiple of {self.num_attention_heads} heads")
        return self.hidden_size // self.num_attention_heads

    def own(self) -> dict[str, Any]:
        """Return the fields of `ModelConfig` that this family names or fills in its own way."""
        return {}

    def shape(self) -> ModelConfig:
        """Put together what all families have and what is this one's own; ValueError if it cannot be."""
        common: dict[str, Any] = {
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.width,
            "attention_scaling": (self.width**-0.5,) * self.num_hidden_layers,
            "tie_word_embeddings": self.tie_word_embeddings,
            "eos_token_id": self.eos_token_id,
        }
        return ModelConfig(**common | self.own())


class _Gpt2(_Family):
    vocab_size: PositiveInt = 50257
    hidden_size: PositiveInt = Field(768, validation_alias=AliasChoices("n_embd", "hidden_size"))
    num_hidden_layers: PositiveInt = Field(12, validation_alias=AliasChoices("n_layer", "num_hidden_layers"))
    num_attention_heads: PositiveInt = Field(12, validation_alias=AliasChoices("n_head", "num_attention_heads"))
    n_positions: PositiveInt = Field(1024, validation_alias=AliasChoices("n_positions", "max_position_embeddings"))
    n_inner: int | None = None
    activation_function: Activation = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    eos_token_id: int | list[int] | None = 50256

    def own(self) -> dict[str, Any]:
        scaling = self.width**-0.5 if self.scale_attn_weights else 1.0
        by_layer = self.scale_attn_by_inverse_layer_idx
        return {
            "intermediate_size": self.n_inner or 4 * self.hidden_size,
            "max_position_embeddings": self.n_positions,
            "activation": self.activation_function,
            "norm_eps": self.layer_norm_epsilon,
            "attention_scaling": tuple(
                scaling / (number + 1 if by_layer else 1) for number in range(self.num_hidden_layers)
            ),
        }


class _Rotary(_Family):
    """A family with rotary positions."""

    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt = 2048
    rope_parameters: RopeParameters = Field(default_factory=RopeParameters)
    hidden_act: Activation
    attention_bias: bool

    @model_validator(mode="before")
    @classmethod
    def _rope(cls, given: Any) -> Any:
        """Put together what files of several ages say in several places, as transformers does."""
        found = dict(given.get("rope_scaling") or given.get("rope_parameters") or {})
        is_neox = given["model_type"] == "gpt_neox"
        theta = given.get("rotary_emb_base" if is_neox else "rope_theta")
        if theta is not None:
            found.setdefault("rope_theta", theta)
        if is_neox:
            share = given.get("rotary_pct")
            found.setdefault("partial_rotary_factor", 0.25 if share is None else share)
        else:
            found.pop("partial_rotary_factor", None)  # the others turn whole heads
        if given.get("original_max_position_embeddings"):
            found["original_max_position_embeddings"] = given["original_max_position_embeddings"]
        return {**given, "rope_parameters": found}

    def own(self) -> dict[str, Any]:
        return {
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rope": self.rope_parameters,
            "activation": self.hidden_act,
            "attention_bias": self.attention_bias,
        }


class _GptNeox(_Rotary):
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    attention_bias: bool = True
    use_parallel_residual: bool = True

    def own(self) -> dict[str, Any]:
        return super().own() | {"norm_eps": self.layer_norm_eps, "is_parallel": self.use_parallel_residual}


class _Llama(_Rotary):
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    hidden_act: Activation = "silu"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False

    @property
    def width(self) -> int:
        return self.head_dim or super().width

    def own(self) -> dict[str, Any]:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % kv_heads:
            raise ValueError(f"{heads} heads cannot share {kv_heads} key-value heads evenly")
        return super().own() | {
            "num_key_value_heads": kv_heads,
            "norm_eps": self.rms_norm_eps,
            "mlp_bias": self.mlp_bias,
            "is_gated": True,
            "is_rms_norm": True,
        }


class _HyperClovaX(_Llama):
    """Llama with muP's multipliers and Peri-Layer Normalization."""

    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    attention_multiplier: float | None = None
    use_post_norm: bool = True

    def own(self) -> dict[str, Any]:
        scaling = self.width**-0.5 if self.attention_multiplier is None else self.attention_multiplier
        return super().own() | {
            "attention_scaling": (scaling,) * self.num_hidden_layers,
            "has_post_norm": self.use_post_norm,
            "embedding_multiplier": self.embedding_multiplier,
            "residual_multiplier": self.residual_multiplier,
            "logits_scaling": self.logits_scaling,
        }


_END_IDS: TypeAdapter[int | list[int] | None] = TypeAdapter(int | list[int] | None)
_FAMILIES: dict[str, type[_Family]] = {
    "gpt2": _Gpt2,
    "gpt_neox": _GptNeox,
    "hyperclovax": _HyperClovaX,
    "llama": _Llama,
}


def read_config(folder: Path) -> ModelConfig:
    """Read the shape of the model in `folder`; a HunminError names the folder and what its config.json lacks."""
    if not folder.is_dir():
        raise HunminError(ErrorCode.NOT_FOUND, f"There is no checkpoint folder {folder}: correct the path.")
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = given["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refused(folder, f"its config.json is missing or not valid ({error!r}).") from error
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise refused(folder, f"model type {model_type} is not one of {', '.join(sorted(MODEL_TYPES))}.")
    for key in _REFUSED_KEYS:
        if given.get(key):
            raise refused(folder, f"its config.json has {key}, which is not served: save plain weights.")
    try:
        return _FAMILIES[model_type].model_validate(given).shape()
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise refused(folder, f"its config.json is not valid ({'; '.join(faults)}).") from error
    except (ValueError, TypeError) as error:
        raise refused(folder, f"its config.json is not valid ({error}).") from error


def read_end_ids(folder: Path, config: ModelConfig) -> frozenset[int]:
    """Return the ids that end a text: those of generation_config.json where it names any, else of config.json."""
    ids = config.eos_token_id
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            own = _END_IDS.validate_python(
                json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"), strict=True
            )
        except (OSError, ValueError, AttributeError) as error:
            raise refused(folder, f"its generation_config.json is not valid ({error}).") from error
        ids = ids if own is None else own
    if ids is None:
        return frozenset()
    return frozenset(ids if isinstance(ids, list) else [ids])


def refused(folder: Path, reason: str) -> HunminError:
    """Return the error of a checkpoint that cannot be served."""
    return HunminError(ErrorCode.INVALID_REQUEST, f"The checkpoint {folder} cannot be loaded: {reason}")

"""How an operator says that another server computes a model. Must not know torch: settings are read without it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator


class RemoteBackend(BaseModel):
    """A server that computes a model: a vLLM server, or a TGI server (another gateway's `/models/NAME` is one too).

    `served_as` is the model's name at a vLLM server; null: the same as here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["vllm", "tgi"]
    url: HttpUrl
    served_as: str | None = Field(default=None, min_length=1)
    api_key: SecretStr | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> "RemoteBackend":
        if self.kind == "tgi" and self.served_as is not None:
            raise ValueError("served_as is for vLLM: a TGI server has one model")
        return self

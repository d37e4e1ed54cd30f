"""The loss of the studio's frozen model as a torch function of a soft prompt: one call brings value and gradient."""

import base64
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from hunmin_contracts.generation import ModelInfo
from hunmin_contracts.gradients import GradientExample, GradientResponse
from hunmin_contracts.soft_prompts import Manifest
from safetensors.torch import load
from torch import Tensor
from torch.autograd.function import once_differentiable

from hunmin.client import Client
from hunmin.errors import NotFoundError, StudioError, UnexpectedAnswerError
from hunmin.tuning.file import soft_prompt_file


class PromptLoss:
    """The mean cross-entropy, in nats, over the target tokens of a batch (`reduction="sum"`: their sum).

    Call it with rows [n_virtual, d_model] and examples: `GradientExample(fields={"review": …}, target=" 최고")` fills
    `template`, in which `<|VIRTUAL_PROMPT_i|>` takes the next `slots[i]` rows. The gradient flows to the rows, so to
    whatever made them; the model's weights stay on the server, and as they are. `model` may be a soft prompt to go on
    from: then its template and slots hold, unless others are given.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        template: str | None = None,
        slots: Sequence[int] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        self.client = client
        self.model = model
        self.template = template
        self.slots = None if slots is None else [*slots]
        self.reduction = reduction

    def __call__(self, rows: Tensor, batch: Sequence[GradientExample]) -> Tensor:
        """Return the loss, a scalar. An example with a template or tokens of its own keeps them."""
        examples = [self._templated(example) for example in batch]

        def ask(file: bytes, *, with_gradient: bool) -> GradientResponse:
            return self.client.gradients(
                model=self.model,
                examples=examples,
                soft_prompt=file,
                slots=self.slots,
                reduction=self.reduction,
                gradient_format="safetensors" if with_gradient else "none",
            )

        with_gradient = rows.requires_grad and torch.is_grad_enabled()
        loss: Tensor = _RemoteLoss.apply(rows, ask, with_gradient)
        return loss

    @property
    def base(self) -> ModelInfo:
        """The base model: its width and the size of its embeddings, which an encoder must know."""
        return self._named[0]

    def file(self, rows: Tensor, **provenance: str) -> bytes:
        """Return rows [n_virtual, d_model] as a file to upload: served as they were trained, on this model only."""
        base, named = self._named
        manifest = Manifest(
            model_digest=base.digest,
            tokenizer_digest=base.tokenizer_digest,
            template=named.template if self.template is None else self.template,
            slots=named.slots if self.slots is None else self.slots,
            provenance=provenance,
        )
        return soft_prompt_file(rows, manifest)

    @cached_property
    def _named(self) -> tuple[ModelInfo, Manifest]:
        """The base model, and what a soft prompt says whose name stands in its place: the studio fills its template."""
        found = {info.name: info for info in self.client.models().models}
        if self.model in found:
            return found[self.model], Manifest()
        try:
            soft_prompt = self.client.soft_prompts.get(self.model)
        except (NotFoundError, ValueError):
            known = ", ".join(found)
            raise StudioError(f"{self.model!r} is no base model ({known}), and no soft prompt of yours.") from None
        return found[soft_prompt.model], soft_prompt.manifest

    def _templated(self, example: GradientExample) -> GradientExample:
        if self.template is None or example.tokens is not None or example.template is not None:
            return example
        return example.model_copy(update={"template": self.template})


class _RemoteLoss(torch.autograd.Function):
    """Asks for value and gradient at once, since the server has computed one on the way to the other."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ask: Callable[..., GradientResponse], with_gradient: bool) -> Tensor:
        response = ask(soft_prompt_file(rows), with_gradient=with_gradient)
        if with_gradient:
            if response.gradient is None:
                raise UnexpectedAnswerError("The studio answered without the gradient that was asked for.")
            gradient = load(base64.b64decode(response.gradient))["gradient"]
            ctx.save_for_backward(gradient.to(rows))
        return rows.new_tensor(response.loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None

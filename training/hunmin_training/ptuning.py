"""p-tuning of a frozen model on a two-label task, to judge a pretrained model; the tuning service is another thing.

Liu et al. 2021 (paper, section 4.3): pseudo-token embeddings come from an LSTM prompt encoder, every weight of the
model is frozen, and what is kept at the end is a matrix [n_virtual, d_model].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hunmin.tuning import LstmPromptEncoder
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Example:
    """Token ids of a text and the number of its label."""

    ids: list[int]
    label: int


@dataclass(frozen=True)
class Task:
    """A frozen model with the label's tokens; the virtual tokens stand half before and half after the text."""

    model: PreTrainedModel
    label_ids: tuple[int, ...]
    max_tokens: int = 160

    def logits(self, prompt: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the label logits, shape [examples, labels], given virtual tokens [n_virtual, d_model]."""
        embed = self.model.get_input_embeddings()
        half = len(prompt) // 2
        rows = [
            torch.cat([prompt[:half], embed(torch.tensor(example.ids[: self.max_tokens])), prompt[half:]])
            for example in examples
        ]
        last = torch.tensor([len(row) - 1 for row in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [examples, longest, d_model]; causal
        hidden = self.model.base_model(inputs_embeds=padded).last_hidden_state
        heads = self.model.get_output_embeddings().weight[list(self.label_ids)]  # [labels, d_model]
        return hidden[torch.arange(len(rows)), last] @ heads.T

    @torch.no_grad()
    def accuracy(self, prompt: Tensor, examples: Sequence[Example], *, batch: int = 64) -> float:
        """Return the share of examples whose label has the highest logit."""
        ordered = sorted(examples, key=lambda example: len(example.ids))
        right = 0
        for start in range(0, len(ordered), batch):
            part = ordered[start : start + batch]
            labels = torch.tensor([example.label for example in part])
            right += int((self.logits(prompt, part).argmax(-1) == labels).sum())
        return right / len(examples)


def tune(
    task: Task,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    n_virtual: int = 20,
    epochs: int = 12,
    batch: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
) -> Tensor:
    """Return the virtual tokens [n_virtual, d_model] of the epoch that was best on `validation`."""
    torch.manual_seed(seed)
    task.model.requires_grad_(requires_grad=False)
    scale = float(task.model.get_parameter("transformer.wte.weight").std())
    encoder = LstmPromptEncoder(n_virtual, task.model.config.hidden_size, scale=scale, seed=seed)
    steps = epochs * -(-len(train) // batch)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=0.1)
    best, best_accuracy = encoder().detach(), 0.0
    for epoch in range(epochs):
        for rows in torch.randperm(len(train)).split(batch):
            part = [train[int(row)] for row in rows]
            labels = torch.tensor([example.label for example in part])
            loss = F.cross_entropy(task.logits(encoder(), part), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        prompt = encoder().detach()
        accuracy = task.accuracy(prompt, validation)
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, validation accuracy {accuracy:.4f}", flush=True)
        if accuracy > best_accuracy:
            best, best_accuracy = prompt, accuracy
    return best

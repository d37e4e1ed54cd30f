"""`make bench-tuning`: a step of p-tuning by our trainer beside one with PEFT's `PromptEncoderConfig`, same weights.

32 rows a step, each a text of 8 to 60 tokens and a one-word answer after 20 virtual tokens, PEFT's LSTM encoder from
the same weights, AdamW, clipping. The baseline is what a user of PEFT writes: a right-padded batch and the loss from
`labels`. Both take the same batches in turn: rows of like length together, as our trainer makes them (`tuning_step`),
and mixed (`tuning_step_mixed`). Before, both must find the same loss and gradients; after, their losses are the same.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.gradient import Example
from hunmin_text.artefact import load
from hunmin_tuning.trainer.order import epoch_batches
from hunmin_tuning.trainer.training import add_gradient
from peft import PeftModel, PromptEncoderConfig, get_peft_model
from report import Metric, Target, report
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, logging

STARTER = Path(__file__).parents[2] / "training" / "models" / "starter"
BATCH, N_VIRTUAL, ROWS = 32, 20, 512
SHORTEST, LONGEST = 8, 60  # tokens of a text
AGREEMENT = 1e-4  # how far losses and gradients for the same rows may lie apart, relative
RATE = 1e-3  # at 5e-3 a change of 1e-6 in the first weights moves the loss of step 60 by a fifth
LAST = 20  # steps at the end whose mean loss is compared
APART = 0.05  # how far that may lie from the baseline's, relative: rounding grows from step to step

Step = Callable[[list[Example]], float]


def rows_of(seed: int) -> list[Example]:
    """Return rows of a task that can be learnt: whether the film was liked stands somewhere in a text about nothing."""
    tokenizer, rng = load(STARTER), random.Random(seed)  # noqa: S311  # lengths, not secrets
    filler = [" 영화", " 배우", "가", " 이야기", "는", " 어제", " 극장", "에서", " 그", " 사람", "들"]
    liked = [(" 최고다", " 좋다"), (" 감동이다", " 좋다"), (" 지루하다", " 싫다"), (" 재미없다", " 싫다")]
    examples = []
    for _ in range(ROWS):
        verdict, answer = rng.choice(liked)
        length = rng.randint(SHORTEST, LONGEST)
        words: list[int] = []
        while len(words) < length:
            words += tokenizer.encode(rng.choice(filler))
        place = rng.randrange(len(words))
        text = [*words[:place], *tokenizer.encode(verdict), *words[place:]][:length]
        prompt = [*range(-1, -N_VIRTUAL - 1, -1), *text, *tokenizer.encode("\n평가:")]
        examples.append(Example(prompt, tokenizer.encode(answer)))
    return examples


class Ours:
    """A step as the trainer takes it."""

    def __init__(self, checkpoint: Checkpoint, baseline: "Baseline") -> None:
        """Begin with PEFT's encoder and its weights: then both have the same loss at each step."""
        self._checkpoint = checkpoint
        self._encoder = deepcopy(baseline.model.prompt_encoder["default"])
        self._indices = baseline.model.prompt_tokens["default"]
        self._optimizer = torch.optim.AdamW(self._encoder.parameters(), lr=RATE, weight_decay=0.0)

    def __call__(self, examples: list[Example]) -> float:
        rows = self._encoder(self._indices[None])[0]
        leaf = rows.detach().requires_grad_()
        loss, _ = add_gradient(self._checkpoint, leaf, examples, divisor=sum(len(e.target) for e in examples))
        self._optimizer.zero_grad()
        rows.backward(leaf.grad)
        nn.utils.clip_grad_norm_(self._encoder.parameters(), 1.0)
        self._optimizer.step()
        return loss


class Baseline:
    """A step as PEFT's users take it."""

    def __init__(self, dtype: torch.dtype) -> None:
        model = AutoModelForCausalLM.from_pretrained(STARTER, dtype=dtype, local_files_only=True)
        width = model.config.hidden_size
        config = PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=N_VIRTUAL,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=width // 2,
            encoder_num_layers=2,
            encoder_dropout=0.0,
        )
        torch.manual_seed(0)
        self.model: PeftModel = get_peft_model(model, config)
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=RATE, weight_decay=0.0)

    def __call__(self, examples: list[Example]) -> float:
        loss = self.loss(examples)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        return loss.item()

    def loss(self, examples: list[Example]) -> Tensor:
        """Return the loss of a right-padded batch, from labels; PEFT puts the rows before it."""
        texts = [[*e.prompt[N_VIRTUAL:], *e.target] for e in examples]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        labels = torch.full_like(ids, -100)
        for number, (text, example) in enumerate(zip(texts, examples, strict=True)):
            begin = len(text) - len(example.target)
            labels[number, begin : len(text)] = torch.tensor(example.target)
        return self.model(input_ids=ids, attention_mask=mask, labels=labels).loss


def check_agreement(checkpoint: Checkpoint, baseline: Baseline, examples: list[Example]) -> None:
    """Feed PEFT's own rows to ours: the same loss, and the same gradient for the encoder behind them."""
    loss = baseline.loss(examples)
    expected = torch.autograd.grad(loss, baseline._trained)
    rows = baseline.model.get_prompt(batch_size=1)[0]
    leaf = rows.detach().requires_grad_()
    found, _ = add_gradient(checkpoint, leaf, examples, divisor=sum(len(e.target) for e in examples))
    gradients = torch.autograd.grad(rows, baseline._trained, leaf.grad)
    apart = [abs(found - loss.item()) / loss.item()]
    apart += [float((one - other).norm() / other.norm()) for one, other in zip(gradients, expected, strict=True)]
    if max(apart) > AGREEMENT:
        raise SystemExit(f"losses or gradients lie {max(apart):.1e} apart: what is measured is not the same")


def compare(*, steps: int, is_mixed: bool) -> Metric:
    """Let both take the same steps in turn."""
    examples = rows_of(1)
    lengths = [1 if is_mixed else example.length for example in examples]
    checkpoint, baseline = load_checkpoint(STARTER), Baseline(torch.float32)
    check_agreement(checkpoint, baseline, examples[:BATCH])
    sides: dict[str, Step] = {"ours": Ours(checkpoint, baseline), "baseline": baseline}
    durations: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    batches = [
        batch
        for epoch in range(-(-steps * BATCH // ROWS))
        for batch in epoch_batches(lengths, BATCH, seed=1, epoch=epoch)
    ]
    for number, batch in enumerate(batches[:steps]):
        chosen = [examples[row] for row in batch]
        for side in sorted(sides, reverse=number % 2 == 1):  # in turn: a slow minute slows both
            begin = time.perf_counter()
            losses[side].append(sides[side](chosen))
            durations[side].append(time.perf_counter() - begin)
    medians = {side: statistics.median(each) * 1e3 for side, each in durations.items()}
    level = {side: statistics.mean(each[-LAST:]) for side, each in losses.items()}
    if abs(level["ours"] / level["baseline"] - 1) > APART:
        raise SystemExit(f"ours ends at a loss of {level['ours']:.3f}, the baseline at {level['baseline']:.3f}")
    return {
        **{side: round(median, 1) for side, median in medians.items()},
        "ratio": round(medians["baseline"] / medians["ours"], 2),
        "unit": "ms/step",
        **{f"loss_{side}": round(loss, 3) for side, loss in level.items()},
    }


def main() -> None:
    """Run both comparisons, print them, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    metrics: dict[str, Metric] = {}
    for metric, is_mixed in (("tuning_step", False), ("tuning_step_mixed", True)):
        metrics[metric] = compare(steps=arguments.steps, is_mixed=is_mixed)
        print(metric, metrics[metric], flush=True)
    report("tuning", metrics, [Target(metric, least=1.5) for metric in metrics])


if __name__ == "__main__":
    main()

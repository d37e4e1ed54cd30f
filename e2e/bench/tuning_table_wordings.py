"""How well the base model alone does in several wordings, judged by the reviews for validation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hunmin_contracts.tuning import TuningTemplate
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_text.artefact import load
from hunmin_text.tuning_example import RowEncoder
from hunmin_tuning.trainer.answers import Answerer
from hunmin_tuning.trainer.evaluation import accuracy
from hunmin_tuning.trainer.job import JobRow
from hunmin_tuning.trainer.preparation import Question


@dataclass(frozen=True)
class Wording:
    """What follows a review, and what then stands for NSMC's labels 0 and 1."""

    question: str
    negative: str
    positive: str

    def template(self, *, before: str, after: str) -> TuningTemplate:
        """Return the template with slots before the review and behind it."""
        return TuningTemplate(
            prompt=f"{before}{{document}}{after}{self.question}",
            answer="{label}",
            verbalizers={"0": self.negative, "1": self.positive},
            truncated="document",
        )


def zero_shot(wordings: Sequence[Wording], reviews: Sequence[JobRow], model: Path, kept: Path) -> list[float]:
    """Return the accuracy in each wording on the validation part; `kept` has those that were measured before."""
    known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    tokenizer, checkpoint = load(model), load_checkpoint(model, dtype=torch.float32, device="cpu")
    validation = [row.fields for row in reviews if row.split == "validation"]
    for wording in wordings:
        if repr(wording) in known:
            continue
        template = wording.template(before="", after="<|VIRTUAL_PROMPT_0|>")
        encoder = RowEncoder(template, tokenizer, slots=(), max_tokens=checkpoint.context_length)
        examples = [encoder.encode(row) for row in validation]
        questions = [
            Question(example.prompt, example.answer, row["label"])
            for example, row in zip(examples, validation, strict=True)
        ]
        answerer = Answerer(checkpoint, None, choices=encoder.choices, pause=lambda: None)
        known[repr(wording)] = accuracy(questions, answerer.answers(questions))
        kept.write_text(json.dumps(known, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(wording, known[repr(wording)], flush=True)
    return [known[repr(wording)] for wording in wordings]

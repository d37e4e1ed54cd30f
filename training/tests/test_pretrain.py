"""A run that is broken off goes on as if nothing had happened."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hunmin_text.artefact import TrainingData, load, save
from hunmin_text.training import Method, train
from hunmin_training import export, pretrain
from hunmin_training.likelihood import bits_per_byte
from hunmin_training.pretrain import Schedule, TokenRows
from hunmin_training.ptuning import Example, Task, tune
from transformers import GPT2LMHeadModel

TEXTS = [f"이 영화는 {word} 재밌다 {number}" for number in range(40) for word in ("정말", "별로", "아주")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny `tokenizer` and a tiny `corpus`."""
    root = tmp_path_factory.mktemp("pretrain")
    learnt = train(Method.BYTE, TEXTS, vocab_size=300)
    data = TrainingData(description="test", lines=len(TEXTS), sha256="0" * 64)
    tokenizer = save(learnt, root / "tokenizer", method=Method.BYTE, training_data=data)
    (root / "corpus").mkdir()
    stream = [token for text in TEXTS for token in [*tokenizer.encode(text), tokenizer.eos_id]]
    np.array(stream, dtype=np.uint16).tofile(root / "corpus" / "train.bin")
    (root / "corpus" / "held_out.txt").write_text("이 영화는 정말 별로\n", encoding="utf-8")
    return root


def train_until(folders: Path, out: Path, *, steps: int = 8, **changes: Any) -> list[dict[str, Any]]:
    """Run pretraining on the tiny corpus and return its metrics."""
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    sizes = "--d-model 32 --layers 2 --heads 2 --context 16 --batch 4 --micro-batch 2 --warmup 2 --decay 2 --threads 1"
    every = "--log-every 1 --eval-every 4 --checkpoint-every 3"
    paths = ["--corpus", folders / "corpus", "--tokenizer", folders / "tokenizer", "--out", out]
    args = parser.parse_args([*map(str, paths), *sizes.split(), *every.split(), "--steps", str(steps)])
    pretrain.run(argparse.Namespace(**{**vars(args), **changes}))
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(metrics: list[dict[str, Any]]) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics if "loss" in line}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_has_the_losses_of_an_undisturbed_one(folders: Path, tmp_path: Path, optimizer: str) -> None:
    whole = losses(train_until(folders, tmp_path / "whole", optimizer=optimizer))
    train_until(folders, tmp_path / "broken", optimizer=optimizer, stop_at=5)
    resumed = losses(train_until(folders, tmp_path / "broken", optimizer=optimizer))
    assert list(resumed) == list(range(1, 9))
    assert resumed == whole


def test_the_first_line_after_a_start_is_a_mean_of_the_steps_it_covers(folders: Path, tmp_path: Path) -> None:
    single = losses(train_until(folders, tmp_path / "single"))
    train_until(folders, tmp_path / "resumed", log_every=2, stop_at=3)
    resumed = losses(train_until(folders, tmp_path / "resumed", log_every=2))
    assert resumed[4] == pytest.approx(single[4])
    assert resumed[6] == pytest.approx((single[5] + single[6]) / 2)


def test_steps_logged_after_the_last_checkpoint_are_logged_once(folders: Path, tmp_path: Path) -> None:
    train_until(folders, tmp_path, stop_at=3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "loss": 99.0}) + "\n")  # a crash at step 4, before its checkpoint
    resumed = train_until(folders, tmp_path)
    assert [line["step"] for line in resumed if "loss" in line] == list(range(1, 9))
    assert all(line.get("loss", 0) < 99 for line in resumed)


def test_training_lowers_loss_and_bits_per_byte(folders: Path, tmp_path: Path) -> None:
    metrics = train_until(folders, tmp_path, steps=40)
    measured = [line["bits_per_byte"] for line in metrics if "bits_per_byte" in line]
    assert losses(metrics)[40] < losses(metrics)[1] - 0.5
    assert measured[-1] < measured[0]


def test_every_row_comes_once_an_epoch(folders: Path) -> None:
    rows = TokenRows(folders / "corpus" / "train.bin", length=16, batch=1, seed=0)
    first = {tuple(rows.at(step)[0].tolist()) for step in range(rows.rows)}
    starts = {tuple(rows.stream[start * 16 : start * 16 + 17].tolist()) for start in range(rows.rows)}
    assert first == starts
    order = [rows.at(step).tolist() for step in range(rows.rows)]
    assert order != [rows.at(step + rows.rows).tolist() for step in range(rows.rows)]


def test_the_schedule_warms_up_holds_and_decays_to_a_tenth() -> None:
    schedule = Schedule(warmup=10, steps=100, decay=20)
    assert schedule.factor(0) == pytest.approx(0.1)
    assert {schedule.factor(step) for step in range(10, 81)} == {1.0}
    assert schedule.factor(90) == pytest.approx(0.55)
    assert schedule.factor(99) == pytest.approx(0.145)


def test_an_exported_model_predicts_as_the_checkpoint_does(folders: Path, tmp_path: Path) -> None:
    measured = train_until(folders, tmp_path / "run")[-1]["bits_per_byte"]
    export.run(argparse.Namespace(run_folder=tmp_path / "run", tokenizer=folders / "tokenizer", out=tmp_path / "model"))
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "model", dtype=torch.float32, local_files_only=True)
    exported = bits_per_byte(model, load(tmp_path / "model"), ["이 영화는 정말 별로"])
    assert exported == pytest.approx(measured, rel=0.01)  # bfloat16 keeps 8 bits


def test_p_tuning_learns_and_leaves_the_model_as_it_was() -> None:
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    required = "--corpus . --tokenizer . --out . --steps 1 --decay 1 --d-model 32 --layers 2 --heads 2 --context 64"
    model = pretrain.build_model(parser.parse_args(required.split()), vocab_size=300, eos_id=0, pad_id=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 8 if weight.ndim > 1 else 1  # a fresh model is too faint for its inputs to show at the end
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    examples = [Example([10 + number % 2] * (5 + number % 7), number % 2) for number in range(64)]
    task = Task(model, label_ids=(3, 4))
    prompt = tune(task, examples, examples, n_virtual=4, epochs=12, batch=8, lr=1e-2)
    assert prompt.shape == (4, 32)
    assert task.accuracy(prompt, examples) > 0.9
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())

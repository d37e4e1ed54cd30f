"""A job from its folder to a soft prompt: it learns, it goes on where it was left, workers agree, faults are named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hunmin_contracts.errors import HunminError
from hunmin_contracts.tuning import Hyperparameters, StepMetrics, TuningResult, TuningTemplate
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_modeling.soft_prompt import read_file
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_text.artefact import load
from hunmin_text.prompt_template import encode_template
from hunmin_tuning.trainer.encoder import new_encoder
from hunmin_tuning.trainer.job import JobFolder, TrainerJob
from hunmin_tuning.trainer.metrics import read_metrics
from hunmin_tuning.trainer.order import learning_rate
from hunmin_tuning.trainer.run import run_job
from hunmin_tuning.trainer.training import Interrupted
from hunmin_tuning.trainer.workers import Workers
from safetensors.torch import load as load_tensors
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

STARTER = Path(__file__).parents[3] / "training" / "models" / "starter"
REVIEW = TuningTemplate(
    prompt="<|VIRTUAL_PROMPT_0|>리뷰: {text}\n감정:",
    answer="{label}",
    verbalizers={"1": " 긍정", "0": " 부정"},
    truncated="text",
)
CHAT = TuningTemplate(prompt="<|VIRTUAL_PROMPT_0|>{text} ->", answer=" {answer}")
FAST = Hyperparameters(
    encoder="lstm", slots=[4], epochs=6, batch_size=16, learning_rate=1e-2, patience=None, dtype="float32"
)

torch.set_num_threads(1)


def reviews(count: int) -> list[dict[str, str]]:
    kinds = [("재미없다", "0"), ("최고다", "1"), ("지루하다", "0"), ("감동이다", "1")]
    what = ["영화가", "배우가", "이야기가", "음악이", "결말이"]
    return [
        {"text": f"{what[n % 5]} {'정말 ' * (n % 7 % 3)}{kinds[n % 4][0]}", "label": kinds[n % 4][1]}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the starter's tokenizer: as quick as can be."""
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama", vocab_size=8192, context_length=64)
    for name in ("hunmin_tokenizer.json", "tokenizer.json", "lexicon.txt"):
        shutil.copy(STARTER / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def local() -> PreTrainedModel:
    """The starter as a developer loads it at home."""
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).requires_grad_(False).eval()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., JobFolder]:
    """Write a job folder: 64 rows to train with, 16 to validate, 16 to test."""

    def write(name: str, model: Path, template: TuningTemplate = REVIEW, rows=None, **settings) -> JobFolder:
        folder = tmp_path / name
        folder.mkdir()
        job = {"threads": 1, "hyperparameters": FAST, "provenance": {"job": name}} | settings
        job = TrainerJob(template=template, model_folder=model, **job)
        (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
        rows = reviews(96) if rows is None else rows
        lines = [
            {"line": n + 2, "split": "train" if n < 64 else "validation" if n < 80 else "test", "fields": fields}
            for n, fields in enumerate(rows)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "rows.jsonl").write_text(text, encoding="utf-8")
        return JobFolder(folder)

    return write


def run(files: JobFolder, *, ends_after: int | None = None) -> TuningResult:
    """Run in this process; asked to end at its `ends_after`-th look."""
    looks = 0

    def is_asked() -> bool:
        nonlocal looks
        looks += 1
        return ends_after is not None and looks >= ends_after

    run_job(files, Workers(), is_asked)
    return TuningResult.model_validate_json(files.result.read_bytes())


def seen(files: JobFolder) -> list[dict[str, object]]:
    """The metrics without what a clock says."""
    return [line.model_dump(exclude={"duration_s"}) for line in read_metrics(files.metrics)]


class TestLearning:
    @pytest.mark.parametrize(
        ("encoder", "rate", "accuracy"), [("lstm", 2e-2, 0.8), ("mlp", 5e-3, 0.8), ("direct", 0.1, 0.4)]
    )
    def test_a_soft_prompt_that_serves_as_it_was_judged(
        self, make, local: PreTrainedModel, encoder: str, rate: float, accuracy: float
    ) -> None:
        parameters = FAST.model_copy(update={"encoder": encoder, "learning_rate": rate, "epochs": 20})
        files = make("job", STARTER, hyperparameters=parameters)
        before = STARTER.joinpath("model.safetensors").read_bytes()
        result = run(files)
        assert result.tuned.accuracy > accuracy
        assert result.zero_shot.accuracy < 0.7
        assert result.tuned.loss < 1 < result.few_shot.loss
        assert STARTER.joinpath("model.safetensors").read_bytes() == before
        checkpoint, tokenizer = load_checkpoint(STARTER), load(STARTER)
        assert result.weights_digest == checkpoint.digest
        rows, manifest, dtype = read_file(files.soft_prompt.read_bytes(), d_model=256)
        assert (manifest.model_digest, manifest.tokenizer_digest) == (checkpoint.digest, tokenizer.digest)
        assert (dtype, manifest.slots, manifest.provenance) == ("float32", [4], {"job": "job"})
        # What a client of the served model would do, one row at a time through the plain model.
        right, nats = 0, 0.0
        for row in reviews(96)[80:]:
            ids = encode_template(manifest.template, {"text": row["text"]}, manifest.slots, tokenizer)
            scores = {
                label: plain_score(local, rows, ids, tokenizer.encode(text))
                for label, text in REVIEW.verbalizers.items()
            }
            right += max(scores, key=scores.get) == row["label"]
            nats -= scores[row["label"]]
        assert right / 16 == result.tuned.accuracy
        assert nats / 16 == pytest.approx(result.tuned.loss * len(tokenizer.encode(" 긍정")), rel=1e-4)

    def test_texts_are_judged_by_match_and_bleu(self, make) -> None:
        rows = [{"text": f"가 {n % 4}", "answer": f"영화가 좋다 {n % 2}"} for n in range(96)]
        parameters = FAST.model_copy(update={"encoder": "mlp", "epochs": 10})
        result = run(make("job", STARTER, CHAT, rows, hyperparameters=parameters))
        assert result.zero_shot.exact_match == 0.0
        assert result.tuned.bleu > 50 > result.zero_shot.bleu
        assert result.tuned.exact_match > 0
        assert result.tuned.accuracy is None

    def test_examples_may_stand_in_the_served_prompt(self, make, tiny: Path) -> None:
        files = make(
            "job",
            tiny,
            REVIEW.model_copy(update={"examples": 2}),
            hyperparameters=FAST.model_copy(update={"epochs": 1}),
        )
        run(files)
        template = read_file(files.soft_prompt.read_bytes(), d_model=32).manifest.template
        assert template.endswith(REVIEW.prompt)
        assert template.count("감정: 긍정\n\n") == template.count("감정: 부정\n\n") == 1

    def test_it_stops_when_nothing_gets_better(self, make, tiny: Path) -> None:
        parameters = FAST.model_copy(update={"epochs": 50, "patience": 2, "learning_rate": 10.0})
        result = run(make("job", tiny, hyperparameters=parameters))
        assert result.stopped_early
        assert result.steps < 200
        assert result.best_step == result.steps - 2 * 4


def plain_score(model: PreTrainedModel, rows: Tensor, prompt: list[int], answer: list[int]) -> float:
    """The log-likelihood by transformers alone."""
    embedding = model.get_input_embeddings().weight
    embedded = torch.stack([rows[-1 - token] if token < 0 else embedding[token] for token in [*prompt, *answer]])
    logits = model(inputs_embeds=embedded[None]).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())


class TestSteps:
    """By the checkpoint after one step: AdamW's first is as long as the rate, its moment a tenth of the gradient."""

    def after_one_step(self, files: JobFolder) -> tuple[dict[str, Tensor], StepMetrics]:
        with pytest.raises(Interrupted):
            run(files, ends_after=1)
        (line,) = read_metrics(files.metrics)
        return load_tensors(files.checkpoint.read_bytes()), line

    def test_the_rate_is_that_of_the_schedule(self, make, tiny: Path) -> None:
        parameters = FAST.model_copy(update={"encoder": "direct", "warmup": 0.5})
        files = make("job", tiny, hyperparameters=parameters)
        tensors, line = self.after_one_step(files)
        begun = new_encoder("direct", load_checkpoint(tiny), n_virtual=4, seed=0)().detach()
        assert line.learning_rate == pytest.approx(1e-2 / 12)
        assert float((tensors["encoder.rows"] - begun).abs().max()) == pytest.approx(1e-2 / 12, rel=1e-2)
        run(files)
        told = [line["learning_rate"] for line in seen(files) if line["kind"] == "step"]
        assert told == [learning_rate(step, 24, peak=1e-2, warmup=0.5) for step in range(24)]

    def test_gradients_are_clipped_and_told_as_they_were(self, make, tiny: Path) -> None:
        norms = []
        for name, longest in (("free", 1e6), ("clipped", 1e-3)):
            parameters = FAST.model_copy(update={"encoder": "direct", "max_gradient_norm": longest})
            tensors, line = self.after_one_step(make(name, tiny, hyperparameters=parameters))
            norms.append(line.gradient_norm)
            taken = min(line.gradient_norm, longest)
            assert float(tensors["optimizer.0.exp_avg"].norm()) == pytest.approx(taken / 10, rel=1e-3)
        assert norms[0] == norms[1] > 1e-3


class TestResuming:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_goes_on_to_the_same_bits(self, make, tiny: Path, dtype: str) -> None:
        settings = {"hyperparameters": FAST.model_copy(update={"dtype": dtype, "evaluations_per_epoch": 2})}
        plain, disturbed = (make(name, tiny, provenance={}, **settings) for name in ("plain", "disturbed"))
        expected = run(plain)
        for looks in (3, 8, 11, 14):  # in a step, and in an evaluation
            with pytest.raises(Interrupted):
                run(disturbed, ends_after=looks)
            assert not disturbed.result.exists()
        assert run(disturbed) == expected
        assert seen(disturbed) == seen(plain)
        (rows, *described), (expected_rows, *expected_described) = (
            read_file(files.soft_prompt.read_bytes(), d_model=32) for files in (disturbed, plain)
        )
        assert torch.equal(rows, expected_rows)
        assert described == expected_described

    def test_survives_a_kill_at_any_moment(self, make, tiny: Path) -> None:
        settings = {"hyperparameters": FAST.model_copy(update={"epochs": 40}), "steps_per_checkpoint": 3}
        plain, killed = make("plain", tiny, **settings), make("killed", tiny, **settings)
        expected = run(plain)
        process = subprocess.Popen([sys.executable, "-m", "hunmin_tuning.trainer", killed.job.parent])
        until(lambda: killed.metrics.exists() and len(read_metrics(killed.metrics)) > 20)
        process.kill()
        process.wait()
        assert not killed.result.exists()
        with killed.metrics.open("ab") as lines:  # more than the checkpoint knows of, the last line cut off
            lines.write(plain.metrics.read_bytes().splitlines(keepends=True)[-1] + b'{"kind": "st')
        assert run(killed) == expected
        assert seen(killed) == seen(plain)
        steps = [line["step"] for line in seen(killed) if line["kind"] == "step"]
        assert steps == list(range(1, 161))


def until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


LEAVING = """
import os, sys
from hunmin_tuning.trainer.workers import Workers
workers = Workers()
import torch._dynamo  # as the optimizer does
assert workers.gather([workers.rank]) == [0, 1]
joined = len(os.listdir("/proc/self/task"))
workers.close()
threads = len(os.listdir("/proc/self/task"))
sys.exit(None if joined > threads == 1 else f"{threads} of {joined} threads are left")
"""


def run_two(*command: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


class TestProcesses:
    def test_two_workers_learn_what_one_does(self, make, tiny: Path) -> None:
        parameters = FAST.model_copy(update={"epochs": 2, "batch_size": 15, "accumulation": 2})
        one, two = (make(name, tiny, hyperparameters=parameters) for name in ("one", "two"))
        expected = run(one)
        run_two("-m", "hunmin_tuning.trainer", str(two.job.parent))
        found = TuningResult.model_validate_json(two.result.read_bytes())
        for name in ("train_loss", "validation_loss"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4)
        for ours, theirs in zip(read_metrics(one.metrics), read_metrics(two.metrics), strict=True):
            assert theirs.loss == pytest.approx(ours.loss, rel=1e-4)
        assert found.tuned.loss == pytest.approx(expected.tuned.loss, rel=1e-3)

    def test_no_thread_of_the_group_outlives_it(self) -> None:
        """One that frees a tensor while the interpreter ends aborts the process, now and then."""
        run_two("--no-python", sys.executable, "-c", LEAVING)

    def test_the_exit_status_says_how_it_ended(self, make, tiny: Path) -> None:
        files = make("job", tiny, hyperparameters=FAST.model_copy(update={"epochs": 1000}))
        wrong = make("wrong", tiny, rows=[{"text": "가", "label": "2"}] * 96)
        command = [sys.executable, "-m", "hunmin_tuning.trainer"]
        processes = [subprocess.Popen([*command, each.job.parent]) for each in (files, wrong)]
        until(lambda: files.metrics.exists() and len(read_metrics(files.metrics)) > 3)
        processes[0].send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in processes] == [3, 2]
        assert files.checkpoint.exists()
        said = json.loads(wrong.error.read_text(encoding="utf-8"))
        assert said["code"] == "invalid_request"
        assert "'2' has no verbalizer" in said["message"]
        assert wrong.error.read_bytes().count(b"\n") == 1


class TestFaults:
    @pytest.mark.parametrize(
        ("template", "rows", "said"),
        [
            (REVIEW, reviews(64), "The validation and the test part has no row"),
            (REVIEW.model_copy(update={"examples": 60}), reviews(96), "examples .* fit into half"),
            (REVIEW.model_copy(update={"truncated": None}), [{"text": "영화 " * 99, "label": "1"}] * 96, "room for"),
        ],
    )
    def test_end_the_job_before_its_first_step(self, make, tiny: Path, template, rows, said: str) -> None:
        files = make("job", tiny, template, rows)
        with pytest.raises(HunminError, match=said):
            run(files)
        assert not files.metrics.exists()

    def test_a_diverged_training_is_the_job_s_fault(self, make, tiny: Path) -> None:
        parameters = FAST.model_copy(update={"encoder": "direct", "learning_rate": 1e38, "warmup": 0.0})
        files = make("job", tiny, hyperparameters=parameters)
        with pytest.raises(HunminError, match="diverged"):
            run(files)
        assert not files.result.exists()

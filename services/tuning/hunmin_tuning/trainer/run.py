"""A job from its folder to its result: loads, trains, answers the test part, and writes what is left."""

import hashlib
from collections.abc import Callable

import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.soft_prompts import Manifest
from hunmin_contracts.tuning import Evaluation, Hyperparameters, StepMetrics, TuningResult
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.linear import frozen_weights, multiplies_bfloat16
from hunmin_modeling.soft_prompt import write_file
from hunmin_modeling.weights import digest_of, weight_files
from hunmin_text.artefact import load
from hunmin_text.tokenizer import Tokenizer
from torch import Tensor

from hunmin_tuning.trainer.answers import Answerer
from hunmin_tuning.trainer.evaluation import evaluate
from hunmin_tuning.trainer.job import JobFolder, TrainerJob, write_whole
from hunmin_tuning.trainer.metrics import read_metrics
from hunmin_tuning.trainer.preparation import Material, Question
from hunmin_tuning.trainer.training import Training
from hunmin_tuning.trainer.workers import Workers


def run_job(files: JobFolder, workers: Workers, is_asked_to_end: Callable[[], bool]) -> None:
    """Do the job, from where it was left. `Interrupted` if it is asked to end before; a HunminError if it is wrong."""
    job = files.read_job()
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    tokenizer = load(job.model_folder)
    checkpoint = load_checkpoint(
        job.model_folder, dtype=training_dtype(job.hyperparameters, workers.device), device=workers.device
    )
    if job.model_digest not in (None, checkpoint.digest):
        raise HunminError(
            ErrorCode.CONFLICT,
            f"The model that is served has the sha256 {str(job.model_digest)[:12]}…, and the folder to train with "
            f"{checkpoint.digest[:12]}…. Name the same one in HUNMIN_TUNING_MODELS as in HUNMIN_GENERATION_MODELS.",
        )
    material = Material(
        job.template,
        job.hyperparameters,
        files.read_rows(),
        tokenizer,
        context_length=checkpoint.context_length,
    )
    before = _digest(checkpoint)
    training = Training(
        files,
        checkpoint,
        material,
        job.hyperparameters,
        workers=workers,
        is_asked_to_end=is_asked_to_end,
        steps_per_checkpoint=job.steps_per_checkpoint,
    )
    training.run()
    digest = digest_of(weight_files(job.model_folder))
    if _digest(checkpoint) != before or digest != checkpoint.digest:
        raise RuntimeError("the frozen weights are not what they were before the training")
    dtype = getattr(torch, job.evaluation_dtype)
    if checkpoint.dtype != dtype:
        checkpoint = load_checkpoint(job.model_folder, dtype=dtype, device=workers.device)
    exam = _Exam(checkpoint, tokenizer, material, workers, training.pause)
    zero_shot, few_shot = exam.take(material.zero_shot), exam.take(material.few_shot)
    tuned = exam.take(material.tuned, training.state.best)
    if not workers.is_first:
        return
    write_whole(files.soft_prompt, write_file(training.state.best, _manifest(job, material, checkpoint, tokenizer)))
    progress = training.state.progress
    files.write_result(
        TuningResult(
            steps=progress.step,
            best_step=progress.best_step,
            stopped_early=progress.step < training.steps,
            train_loss=_train_loss(files, progress.best_step),
            validation_loss=progress.best_loss,
            zero_shot=zero_shot,
            few_shot=few_shot,
            tuned=tuned,
            weights_digest=digest,
        )
    )


def training_dtype(parameters: Hyperparameters, device: str) -> torch.dtype:
    """Return the type of the frozen weights: bfloat16 where products are done in it, if nothing else was asked for."""
    if parameters.dtype is not None:
        dtype: torch.dtype = getattr(torch, parameters.dtype)
        return dtype
    is_fast = multiplies_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32


class _Exam:
    """The test part, answered by one model in several ways."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        material: Material,
        workers: Workers,
        pause: Callable[[], None],
    ) -> None:
        self._checkpoint, self._tokenizer, self._material = checkpoint, tokenizer, material
        self._workers, self._pause = workers, pause
        learned = [each.answer for each in material.train]
        self._longest = max(map(len, learned + [each.answer for each in material.tuned]))

    def take(self, questions: list[Question], rows: Tensor | None = None) -> Evaluation:
        """Answer all and judge the answers."""
        choices = self._material.choices
        mine = self._workers.mine(questions)
        answerer = Answerer(self._checkpoint, rows, choices=choices, pause=self._pause)
        answers = answerer.answers(mine)
        if not choices:
            answers = answerer.with_texts(mine, answers, self._tokenizer, max_tokens=self._longest)
        return evaluate(questions, self._workers.gather(answers), are_labels=bool(choices))


def _manifest(job: TrainerJob, material: Material, checkpoint: Checkpoint, tokenizer: Tokenizer) -> Manifest:
    return Manifest(
        model_digest=checkpoint.digest,
        tokenizer_digest=tokenizer.digest,
        template=material.served,
        slots=job.hyperparameters.slots,
        provenance=job.provenance,
    )


def _train_loss(files: JobFolder, best_step: int) -> float:
    """Return the mean loss of the steps between the best evaluation and the one before it."""
    lines = read_metrics(files.metrics)
    before = max((line.step for line in lines if line.kind == "validation" and line.step < best_step), default=0)
    losses = [line.loss for line in lines if isinstance(line, StepMetrics) and before < line.step <= best_step]
    return sum(losses) / len(losses)


def _digest(checkpoint: Checkpoint) -> str:
    """Return the sha256 of every weight as it lies in memory."""
    digest = hashlib.sha256()
    for name, weight in frozen_weights(checkpoint.model):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

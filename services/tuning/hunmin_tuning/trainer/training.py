"""The loop: steps, evaluations, checkpoints, and an end that is the same however often it was interrupted."""

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import Hyperparameters, StepMetrics, ValidationMetrics
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.gradient import Example
from hunmin_modeling.shared_prefix import PackedPrompts, target_logits
from torch import Tensor, nn

from hunmin_tuning.trainer.answers import Answerer
from hunmin_tuning.trainer.encoder import new_encoder
from hunmin_tuning.trainer.evaluation import accuracy, mean_loss
from hunmin_tuning.trainer.job import JobFolder
from hunmin_tuning.trainer.metrics import MetricsFile
from hunmin_tuning.trainer.order import epoch_batches, evaluation_steps, learning_rate
from hunmin_tuning.trainer.preparation import Material
from hunmin_tuning.trainer.state import TrainingState
from hunmin_tuning.trainer.workers import Workers


class Interrupted(Exception):
    """The process was asked to end; what it had done is in its checkpoint."""


class Training:
    """The training of one job by all workers, from its checkpoint if there is one."""

    def __init__(
        self,
        files: JobFolder,
        checkpoint: Checkpoint,
        material: Material,
        parameters: Hyperparameters,
        *,
        workers: Workers,
        is_asked_to_end: Callable[[], bool],
        steps_per_checkpoint: int,
    ) -> None:
        """Set everything up as it was at the last checkpoint."""
        self._files, self._checkpoint, self._material = files, checkpoint, material
        self._parameters, self._workers = parameters, workers
        self._is_asked_to_end = is_asked_to_end
        self._steps_per_checkpoint = steps_per_checkpoint
        self._examples = [Example(each.prompt, each.answer) for each in material.train]
        encoder = new_encoder(parameters.encoder, checkpoint, n_virtual=sum(parameters.slots), seed=parameters.seed)
        optimizer = torch.optim.AdamW(
            encoder.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay
        )
        self.state = TrainingState(encoder, optimizer)
        is_resumed = workers.is_first and files.checkpoint.exists()
        content = workers.of_first(files.checkpoint.read_bytes() if is_resumed else None)
        if content is not None:
            self.state.load(content)
        self._steps_per_epoch = -(-len(self._examples) // parameters.batch_size)
        self.steps = parameters.epochs * self._steps_per_epoch
        self._evaluated_in_epoch = evaluation_steps(self._steps_per_epoch, parameters.evaluations_per_epoch)
        self._order = lru_cache(maxsize=1)(self._epoch)

    def run(self) -> None:
        """Train to the end; `Interrupted` if it is asked to end before. The first worker writes the metrics."""
        progress = self.state.progress
        metrics = (
            MetricsFile(self._files.metrics, step=progress.step, evaluated=progress.evaluated)
            if self._workers.is_first
            else None
        )
        try:
            self._run(metrics)
        finally:
            if metrics is not None:
                metrics.close()

    @property
    def has_stopped_early(self) -> bool:
        """Whether as many evaluations as it has patience for brought no better loss."""
        patience = self._parameters.patience
        return patience is not None and self.state.progress.waited >= patience

    def _run(self, metrics: MetricsFile | None) -> None:
        progress = self.state.progress
        while True:
            is_due = (progress.step - 1) % self._steps_per_epoch + 1 in self._evaluated_in_epoch
            if progress.step > progress.evaluated and is_due:
                self._evaluate(metrics)
                self._save(metrics)
            if progress.step >= self.steps or self.has_stopped_early:
                return
            must_end = self._step(metrics)
            if must_end or progress.step % self._steps_per_checkpoint == 0:
                self._save(metrics)
            if must_end:
                raise Interrupted

    def _step(self, metrics: MetricsFile | None) -> bool:
        """Take an optimiser step; return whether a worker was asked to end."""
        begin = time.perf_counter()
        state, parameters, step = self.state, self._parameters, self.state.progress.step
        epoch = step // self._steps_per_epoch
        batch = [self._examples[number] for number in self._order(epoch)[step % self._steps_per_epoch]]
        rate = learning_rate(step, self.steps, peak=parameters.learning_rate, warmup=parameters.warmup)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        rows = state.encoder()  # [n_virtual, d_model]
        gradient, loss, tokens, must_end = self._gradient(rows, batch)
        _check_loss(loss, step + 1)
        state.optimizer.zero_grad()
        rows.backward(gradient)
        norm = nn.utils.clip_grad_norm_(state.encoder.parameters(), parameters.max_gradient_norm)
        state.optimizer.step()
        state.progress.step = step + 1
        if metrics is not None:
            metrics.write(
                StepMetrics(
                    step=step + 1,
                    total_steps=self.steps,
                    epoch=epoch,
                    loss=loss,
                    learning_rate=rate,
                    gradient_norm=float(norm),
                    tokens=tokens,
                    duration_s=time.perf_counter() - begin,
                )
            )
        return must_end

    def _gradient(self, rows: Tensor, batch: list[Example]) -> tuple[Tensor, float, int, bool]:
        """Return the gradient at the rows, the loss, the positions that went through, and whether one must end.

        That gradient is all that workers have to tell each other: the encoder's follows from it, in each alike.
        """
        leaf = rows.detach().requires_grad_()
        divisor = sum(len(example.target) for example in batch)
        loss, tokens = add_gradient(
            self._checkpoint, leaf, self._workers.mine(batch), divisor=divisor, passes=self._parameters.accumulation
        )
        mine = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        told = leaf.new_tensor([loss, tokens, self._is_asked_to_end()])
        summed = self._workers.sum(torch.cat([mine.flatten(), told]))
        loss, tokens, ends = summed[-3:].tolist()
        return summed[:-3].view_as(leaf), loss, int(tokens), ends > 0

    def _evaluate(self, metrics: MetricsFile | None) -> None:
        state, progress = self.state, self.state.progress
        with torch.no_grad():
            rows = state.encoder().detach()
        answerer = Answerer(self._checkpoint, rows, choices=self._material.choices, pause=self.pause)
        questions = self._material.validation
        answers = self._workers.gather(answerer.answers(self._workers.mine(questions)))
        loss = mean_loss(answers)
        _check_loss(loss, progress.step)
        is_best = loss < progress.best_loss
        if is_best:
            progress.best_step, progress.best_loss, progress.waited = progress.step, loss, 0
            state.best = rows.clone()
        else:
            progress.waited += 1
        progress.evaluated = progress.step
        if metrics is not None:
            metrics.write(
                ValidationMetrics(
                    step=progress.step,
                    loss=loss,
                    accuracy=accuracy(questions, answers) if self._material.choices else None,
                    is_best=is_best,
                )
            )

    def pause(self) -> None:
        """End an evaluation if asked to. Several workers end at a step alone, all at the same one."""
        if self._workers.size == 1 and self._is_asked_to_end():
            if self.state.progress.step:
                self.state.save(self._files.checkpoint)
            raise Interrupted

    def _save(self, metrics: MetricsFile | None) -> None:
        if metrics is not None:
            metrics.settle()
            self.state.save(self._files.checkpoint)

    def _epoch(self, epoch: int) -> list[list[int]]:
        lengths = [example.length for example in self._examples]
        return epoch_batches(lengths, self._parameters.batch_size, seed=self._parameters.seed, epoch=epoch)


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"The loss after step {step} is not a number any more: the training diverged. Lower learning_rate.",
            param="learning_rate",
        )


def add_gradient(
    checkpoint: Checkpoint, rows: Tensor, examples: Sequence[Example], *, divisor: int, passes: int = 1
) -> tuple[float, int]:
    """Add to `rows.grad` the gradient of the answers' summed loss over `divisor`; return that loss and the positions.

    `rows` [n_virtual, d_model] is a leaf; `passes` many parts of the examples go through the model one after another.
    """
    total, tokens = 0.0, 0
    size = -(-len(examples) // passes)
    for start in range(0, len(examples), size or 1):
        packed = PackedPrompts(examples[start : start + size], device=checkpoint.device)
        logits = target_logits(checkpoint, packed, rows)
        loss = F.cross_entropy(logits.float(), packed.targets, reduction="sum") / divisor
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
        tokens += len(packed.ids)
    return total, tokens

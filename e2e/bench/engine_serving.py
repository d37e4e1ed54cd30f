"""What only this engine does, beside itself without it: soft prompts in a batch, gradients while it decodes."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from engine_load import SHAPE, Load, engine_of, serve, served, timed
from gradients import N_VIRTUAL, batch_of
from hunmin_generation.engine.engine import Engine
from hunmin_generation.gradients.worker import GradientWorker
from hunmin_modeling.checkpoint import Checkpoint, load_checkpoint
from hunmin_modeling.gradient import Gradients, Wanted
from hunmin_modeling.soft_prompt import SoftPromptRows
from report import Metric

SOFT_PROMPTS, ROWS = 32, 20
LONG_ROWS, LONG_ROUNDS = 200, 12
DECODING, GRADIENT_TOKENS = 8, 512


def compare_serving(folder: Path, *, rounds: int, threads: int) -> dict[str, Metric]:
    """Measure everything in bfloat16."""
    checkpoint = load_checkpoint(folder, dtype=torch.bfloat16)
    engine = engine_of(checkpoint)
    metrics: dict[str, Metric] = {}
    with asyncio.Runner() as runner:
        runner.run(serve(engine, Load.of(2, seed=-1), threads))
        for count in (32, 64):
            metrics[f"soft_prompts_{count}_requests"] = _soft_prompts(runner, engine, count, rounds, threads)
        metrics["time_to_first_token_cached"] = runner.run(_first_token(engine, threads))
        metrics["decode_p95_with_gradients"] = runner.run(_with_gradients(engine, checkpoint, rounds, threads))
    for name, metric in metrics.items():
        print(name, metric, flush=True)
    return metrics


def _soft_prompts(runner: asyncio.Runner, engine: Engine, count: int, rounds: int, threads: int) -> Metric:
    """Tokens a second of a load whose requests have 32 different soft prompts, and of the same load without."""
    soft_prompts = [_soft_prompt(ROWS, f"{number}") for number in range(SOFT_PROMPTS)]
    once = replace(Load.of(SOFT_PROMPTS, seed=-2), soft_prompts=soft_prompts)
    runner.run(serve(engine, once, threads))
    speeds: dict[str, list[float]] = {"ours": [], "baseline": []}
    run: Callable[[Load], object] = lambda load: runner.run(serve(engine, load, threads))  # noqa: E731
    for number in range(2 * rounds):
        load = Load.of(count, seed=1000 * count + number)
        sides = {"ours": replace(load, soft_prompts=soft_prompts), "baseline": load}
        for side in sorted(sides, reverse=number % 2 == 1):
            speeds[side].append(load.tokens / timed(run, sides[side]))
    return _metric(speeds, "token/s")


async def _first_token(engine: Engine, threads: int) -> Metric:
    """Milliseconds to the first token after a soft prompt of 200 rows that is in the cache, and that is not."""
    waits: dict[str, list[float]] = {"ours": [], "baseline": []}
    for number in range(LONG_ROUNDS):
        soft_prompt = _soft_prompt(LONG_ROWS, f"long {number}")
        for side, seed in (("baseline", 2 * number), ("ours", 2 * number + 1)):  # the first puts it there
            (request,) = replace(Load.of(1, seed=seed), soft_prompts=[soft_prompt]).requests()
            request = replace(request, prompt=request.prompt[: LONG_ROWS + 16], max_tokens=1)
            async with served(engine, threads) as thread:
                begin = time.perf_counter()
                async for event in thread.generate(request):
                    if event.type == "chunk":
                        waits[side].append(1000 * (time.perf_counter() - begin))
    return _metric(waits, "ms")


async def _with_gradients(engine: Engine, checkpoint: Checkpoint, rounds: int, threads: int) -> Metric:
    """The 95th percentile of the milliseconds between tokens of 8 streams, with gradients at full load and without."""
    rows = _soft_prompt(N_VIRTUAL, "gradients").rows

    async def compute(worker: GradientWorker, start: int) -> None:
        for seed in itertools.count(start, 2):
            batch = Gradients(checkpoint, batch_of(seed), rows, Wanted(divisor=1), max_tokens=GRADIENT_TOKENS)
            async for _ in worker.compute(batch):
                pass

    gaps: dict[str, list[float]] = {"ours": [], "baseline": []}
    busy_s, backward_tokens = 0.0, 0
    for number in range(rounds):
        prompts = Load.of(DECODING, seed=77 + number).prompts
        load = Load(prompts, [96] * DECODING)
        for side in sorted(gaps, reverse=number % 2 == 1):
            if side == "baseline":
                gaps[side] += [1000 * gap for gap in await serve(engine, load, threads)]
                continue
            worker = GradientWorker(threads=threads, max_queue=1)
            worker.start()
            work = asyncio.gather(*(compute(worker, start) for start in range(2)))  # one waits while one is computed
            await asyncio.sleep(0.5)  # so that it is well under way
            begin, before = time.perf_counter(), worker.backward_tokens
            gaps[side] += [1000 * gap for gap in await serve(engine, load, threads)]
            busy_s += time.perf_counter() - begin
            backward_tokens += worker.backward_tokens - before
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await worker.close()
    p95 = {side: [statistics.quantiles(values, n=20)[-1]] for side, values in gaps.items()}
    return _metric(p95, "ms") | {"backward_tokens_per_s": round(backward_tokens / busy_s, 1)}


def _soft_prompt(rows: int, key: str) -> SoftPromptRows:
    return SoftPromptRows(f"sp_{key}", torch.randn(rows, SHAPE.hidden_size) * SHAPE.initializer_range)


def _metric(values: dict[str, list[float]], unit: str) -> Metric:
    ours, baseline = (statistics.median(values[side]) for side in ("ours", "baseline"))
    return {"ours": round(ours, 1), "baseline": round(baseline, 1), "ratio": round(ours / baseline, 3), "unit": unit}

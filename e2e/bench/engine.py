"""`make bench-engine`: our engine beside transformers' `generate`, and beside itself with soft prompts and gradients.

Requests have different prompts and different lengths. Ours come in together through the engine's thread, as the service
sends them; the baseline gets them as one left-padded batch, runs until its longest output, and is credited with the
tokens that were asked for. Greedy, end tokens ignored, alternating rounds, medians. Same weights, same run.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from engine_int8 import int8_loss
from engine_load import SHAPE, Load, alone, engine_of, run_baseline, serve, timed
from engine_serving import compare_serving
from hunmin_modeling.checkpoint import load_checkpoint
from report import Metric, Target, report
from transformers import AutoModelForCausalLM, LlamaForCausalLM, logging

Metrics = dict[str, Metric]
TARGETS = [
    Target("decode_1_requests", least=1.1),
    Target("decode_8_requests", least=1.4),
    Target("decode_32_requests", least=1.8),
    Target("decode_64_requests", least=1.8),
    Target("soft_prompts_32_requests", least=0.97),
    Target("soft_prompts_64_requests", least=0.97),
    Target("time_to_first_token_cached", most=0.3),
    Target("decode_p95_with_gradients", most=1.5),
]


def compare(folder: Path, precision: str, *, concurrency: list[int], rounds: int, threads: int) -> Metrics:
    """Measure both at each number of concurrent requests. int8: our linear layers beside the baseline's bfloat16."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    baseline = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    checkpoint = load_checkpoint(folder, dtype=dtype, int8=precision == "int8")
    engine = engine_of(checkpoint)
    metrics: Metrics = {}
    with asyncio.Runner() as runner:
        sides: dict[str, Callable[[Load], object]] = {
            "ours": lambda load: runner.run(serve(engine, load, threads)),
            "baseline": lambda load: alone(lambda: run_baseline(baseline, load), threads),
        }
        for run in sides.values():
            run(Load.of(2, seed=-1))
        for count in concurrency:
            speeds: dict[str, list[float]] = {side: [] for side in sides}
            for number in range(rounds):
                loads = [Load.of(count, seed=10 * number + i) for i in range(4 if count == 1 else 1)]
                seconds = dict.fromkeys(sides, 0.0)
                for turn, load in enumerate(loads, start=number):  # side by side: a slow minute slows both
                    for side in sorted(sides, reverse=turn % 2 == 1):
                        seconds[side] += timed(sides[side], load)
                for side in sides:
                    speeds[side].append(sum(load.tokens for load in loads) / seconds[side])
            ours, theirs = (statistics.median(speeds[side]) for side in sides)
            name = f"decode_{count}_requests" + ("" if precision == "bfloat16" else f"_{precision}")
            metrics[name] = {
                "ours": round(ours, 1),
                "baseline": round(theirs, 1),
                "ratio": round(ours / theirs, 2),
                "unit": "token/s",
            }
            print(name, metrics[name], flush=True)
    return metrics


def main() -> None:
    """Run every comparison, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 64])
    precisions = ["bfloat16", "float32", "int8"]
    parser.add_argument("--precision", nargs="*", choices=precisions, default=precisions)
    parser.add_argument("--no-serving", action="store_true", help="leave out soft prompts and gradients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # no team of this thread: each side brings its own
    torch.manual_seed(0)
    metrics: Metrics = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        LlamaForCausalLM(SHAPE).to(torch.bfloat16).save_pretrained(folder)
        for precision in arguments.precision:
            metrics |= compare(
                folder,
                precision,
                concurrency=arguments.concurrency,
                rounds=arguments.rounds,
                threads=arguments.threads,
            )
        if not arguments.no_serving:
            metrics |= compare_serving(folder, rounds=arguments.rounds, threads=arguments.threads)
        if "int8" in arguments.precision:
            metrics |= int8_loss()
    report("engine", metrics, TARGETS)


if __name__ == "__main__":
    main()

"""`make bench-engine`: our engine beside transformers' `generate`, on the same weights, in the same run.

Requests have different prompts and different lengths. Ours come in together through the engine's thread, as the service
sends them; the baseline gets them as one left-padded batch, runs until its longest output, and is credited with the
tokens that were asked for. Greedy, end tokens ignored, alternating rounds, medians.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hunmin_contracts.generation import Sampling
from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.thread import EngineThread
from hunmin_modeling.checkpoint import load_checkpoint
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, logging

RESULTS = Path(__file__).parent / "results" / "engine.json"
# 110M parameters: the shape that facts.md measured other engines with.
SHAPE = LlamaConfig(
    vocab_size=32_000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
PROMPT, OUTPUT = (16, 128), (16, 64)  # tokens, the least and the most


class Letters:
    """A vocabulary in which each token is a letter: the tokenizer is not what is measured."""

    vocab_size = SHAPE.vocab_size
    eos_id = 0

    class Decoder:
        """Letters need nothing held back."""

        def push(self, token_id: int) -> str:
            """Return the letter."""
            return chr(0x4E00 + token_id % 0x5000)

        def flush(self) -> str:
            """Return nothing."""
            return ""

    def decoder(self) -> Decoder:
        """Start a stream."""
        return self.Decoder()

    def decode(self, ids: list[int]) -> str:
        """Decode a text."""
        return "".join(map(self.token_text, ids))

    def token_text(self, token_id: int) -> str:
        """Return the letter."""
        return self.Decoder().push(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """Return its bytes."""
        return self.token_text(token_id).encode()


@dataclass(frozen=True)
class Load:
    """Requests that arrive together."""

    prompts: list[list[int]]
    outputs: list[int]

    @classmethod
    def of(cls, requests: int, *, seed: int) -> "Load":
        """Draw requests of random lengths."""
        rng = random.Random(seed)  # noqa: S311  # lengths, not secrets
        prompts = [[rng.randrange(1, SHAPE.vocab_size) for _ in range(rng.randint(*PROMPT))] for _ in range(requests)]
        return cls(prompts, [rng.randint(*OUTPUT) for _ in range(requests)])

    @property
    def tokens(self) -> int:
        """How many tokens are asked for."""
        return sum(self.outputs)


async def run_ours(thread: EngineThread, load: Load) -> None:
    """Serve every request at once and read its stream to the end."""

    async def one(prompt: list[int], output: int) -> int:
        request = EngineRequest(prompt, sampling=Sampling(temperature=0), max_tokens=output, ignore_end=True)
        return len([event async for event in thread.generate(request)])

    await asyncio.gather(*(one(*request) for request in zip(load.prompts, load.outputs, strict=True)))


def run_baseline(model: PreTrainedModel, load: Load) -> None:
    """Generate for every request in one left-padded batch."""
    longest = max(map(len, load.prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in load.prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in load.prompts])
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(load.outputs),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )


def timed(run: Callable[[Load], None], load: Load) -> float:
    """Return the seconds that a load took."""
    begin = time.perf_counter()
    run(load)
    return time.perf_counter() - begin


def compare(
    folder: Path, dtype: torch.dtype, *, concurrency: list[int], rounds: int, threads: int
) -> dict[str, dict[str, object]]:
    """Measure both at each number of concurrent requests."""
    baseline = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    engine = Engine(load_checkpoint(folder, dtype=dtype), Letters(), EngineLimits(kv_bytes=512 * 2**20))
    metrics: dict[str, dict[str, object]] = {}
    with asyncio.Runner() as runner:
        thread = EngineThread(engine, threads=threads, max_queue=64)
        runner.run(_start(thread))
        sides: dict[str, Callable[[Load], None]] = {
            "ours": lambda load: runner.run(run_ours(thread, load)),
            "baseline": lambda load: run_baseline(baseline, load),
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
            name = f"decode_{count}_requests" if dtype == torch.bfloat16 else f"decode_{count}_requests_float32"
            metrics[name] = {
                "ours": round(ours, 1),
                "baseline": round(theirs, 1),
                "ratio": round(ours / theirs, 2),
                "unit": "token/s",
            }
            print(name, metrics[name], flush=True)
        runner.run(thread.close())
    return metrics


async def _start(thread: EngineThread) -> None:
    thread.start()


def main() -> None:
    """Run every comparison, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtype", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    metrics: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        LlamaForCausalLM(SHAPE).to(torch.bfloat16).save_pretrained(folder)
        for dtype in arguments.dtype:
            metrics |= compare(
                folder,
                getattr(torch, dtype),
                concurrency=arguments.concurrency,
                rounds=arguments.rounds,
                threads=arguments.threads,
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"metrics": metrics}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the engine's benchmarks have in common: a model's shape, random requests, and both sides that serve them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from hunmin_contracts.generation import Sampling
from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.thread import EngineThread
from hunmin_modeling.checkpoint import Checkpoint
from hunmin_modeling.kv_pool import kv_bytes_per_token
from hunmin_modeling.soft_prompt import SoftPromptRows
from transformers import LlamaConfig, PreTrainedModel

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
KV_TOKENS = 16_384  # in any precision: room for 64 requests with soft prompts of 20 rows


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
    soft_prompts: list[SoftPromptRows] = field(default_factory=list)  # request i has number i, over and over

    @classmethod
    def of(cls, requests: int, *, seed: int) -> "Load":
        """Draw requests of random lengths."""
        rng = random.Random(seed)  # noqa: S311  # lengths, not secrets
        prompts = [[rng.randrange(1, SHAPE.vocab_size) for _ in range(rng.randint(*PROMPT))] for _ in range(requests)]
        return cls(prompts, [rng.randint(*OUTPUT) for _ in range(requests)])

    def requests(self) -> list[EngineRequest]:
        """The same as requests to the engine, greedy, end tokens ignored; a soft prompt comes before its prompt."""
        requests = []
        for number, (prompt, output) in enumerate(zip(self.prompts, self.outputs, strict=True)):
            soft_prompt = self.soft_prompts[number % len(self.soft_prompts)] if self.soft_prompts else None
            rows = [-1 - row for row in range(len(soft_prompt.rows))] if soft_prompt is not None else []
            requests.append(
                EngineRequest(
                    rows + prompt,
                    sampling=Sampling(temperature=0),
                    max_tokens=output,
                    ignore_end=True,
                    soft_prompt=soft_prompt,
                )
            )
        return requests

    @property
    def tokens(self) -> int:
        """How many tokens are asked for."""
        return sum(self.outputs)


async def run_ours(thread: EngineThread, load: Load) -> list[float]:
    """Serve every request at once, read its stream to the end, and return the seconds between its tokens."""

    async def one(request: EngineRequest) -> list[float]:
        arrived = [time.perf_counter() async for event in thread.generate(request) if event.type == "chunk"]
        return [after - before for before, after in pairwise(arrived)]

    return [gap for gaps in await asyncio.gather(*map(one, load.requests())) for gap in gaps]


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


def alone(run: Callable[[], object], threads: int) -> None:
    """Run on a thread that ends: an OpenMP team left behind slows every other one, and so whoever is measured next."""

    def begin() -> None:
        torch.get_num_threads()  # first: a thread's first look at the number sets it to what another thread set last
        torch.set_num_threads(threads)

    with ThreadPoolExecutor(1, initializer=begin) as executor:
        executor.submit(run).result()


def engine_of(checkpoint: Checkpoint) -> Engine:
    """Return an engine with room for every load."""
    token_bytes = kv_bytes_per_token(checkpoint.config, checkpoint.dtype)
    return Engine(checkpoint, Letters(), EngineLimits(kv_bytes=KV_TOKENS * token_bytes))


@asynccontextmanager
async def served(engine: Engine, threads: int) -> AsyncIterator[EngineThread]:
    """A thread for the engine, which ends with the block."""
    thread = EngineThread(engine, threads=threads, max_queue=64)
    thread.start()
    try:
        yield thread
    finally:
        await thread.close()


async def serve(engine: Engine, load: Load, threads: int) -> list[float]:
    """Serve a load on a thread that ends; return the seconds between its tokens."""
    async with served(engine, threads) as thread:
        return await run_ours(thread, load)


def timed(run: Callable[[Load], object], load: Load) -> float:
    """Return the seconds that a load took."""
    begin = time.perf_counter()
    run(load)
    return time.perf_counter() - begin

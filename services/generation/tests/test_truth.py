"""The truth test: what the engine generates for a request is what the model generates for it alone, token for token.

Batched, chunked, preempted and mixed with others that come and go, in float32, against `generate` of transformers on
the same weights. Sums of products come out a little differently in batches of different sizes, by less than ROUNDING in
a logit (at most 2e-5 was seen on these models); so requests are taken on which the model's two best tokens are never
closer than ten times that, and any difference is a fault.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hunmin_contracts.generation import Sampling
from hunmin_generation.engine.engine import Engine
from hunmin_generation.engine.request import EngineRequest, Event
from hunmin_modeling.checkpoint import MODEL_TYPES
from hunmin_modeling.testing import tiny_model

ROUNDING = 5e-5
REQUESTS = 12


@dataclass(frozen=True)
class Case:
    """A request, and what transformers generates for it."""

    prompt: list[int]
    expected: list[int]

    @property
    def request(self) -> EngineRequest:
        return EngineRequest(
            self.prompt, sampling=Sampling(temperature=0), max_tokens=len(self.expected), ignore_end=True
        )


@pytest.fixture(scope="module", params=sorted(MODEL_TYPES))
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cases(model_type: str) -> list[Case]:
    model, rng = tiny_model(model_type), random.Random(7)  # noqa: S311  # requests, not secrets
    cases: list[Case] = []
    for _ in range(3 * REQUESTS):
        prompt = [rng.randrange(97) for _ in range(rng.randint(1, 40))]
        found = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=rng.randint(1, 40),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.cat(found.logits).topk(2).values
        if (best[:, 0] - best[:, 1]).min() > 10 * ROUNDING:
            cases.append(Case(prompt, found.sequences[0, len(prompt) :].tolist()))
    assert len(cases) >= REQUESTS
    return cases[:REQUESTS]


def generate(engine: Engine, cases: list[Case], *, ids: Callable[[str], list[int]], seed: int) -> list[list[int]]:
    """Run the requests of `cases`, which arrive at random steps, and return the tokens of each."""
    rng = random.Random(seed)  # noqa: S311  # schedules, not secrets
    events: list[list[Event]] = [[] for _ in cases]
    arriving = list(zip(cases, events, strict=True))
    rng.shuffle(arriving)
    while arriving or not engine.is_idle:
        for _ in range(rng.choice([0, 0, 1, 2, 5])):
            if arriving:
                case, sink = arriving.pop()
                engine.add(case.request, sink.append)
        engine.step()
    return [ids("".join(event.text for event in sink if event.type == "chunk")) for sink in events]


def test_one_by_one_equals_transformers(model_type, cases, new_engine, vocabulary) -> None:
    engine = new_engine(model_type)
    found = [generate(engine, [case], ids=vocabulary.ids, seed=0)[0] for case in cases]
    assert found == [case.expected for case in cases]


@pytest.mark.parametrize("seed", range(4))
def test_mixed_equals_transformers(model_type, cases, new_engine, vocabulary, seed: int) -> None:
    engine = new_engine(model_type, blocks=24, max_batch_tokens=[8, 16, 24, 64][seed], max_running=8)
    assert generate(engine, cases, ids=vocabulary.ids, seed=seed) == [case.expected for case in cases]
    assert engine.scheduler.preemptions > 0
    assert engine.scheduler.blocks.free == 24


def test_scattered_blocks_equal_transformers(model_type, cases, new_engine, vocabulary) -> None:
    engine = new_engine(model_type, blocks=400)
    held = engine.scheduler.blocks.take(200)
    engine.scheduler.blocks.give_back(held[::5])  # what is free lies far apart: attention copies it out
    assert generate(engine, cases, ids=vocabulary.ids, seed=0) == [case.expected for case in cases]

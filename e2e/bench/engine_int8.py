"""What 8-bit integers cost in quality: bits per byte of the starter model on reviews that it was not trained on."""

import csv
import math
from pathlib import Path

from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest, PromptEvent
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_text.artefact import load
from hunmin_tuning.products.catalogue import find_product, sample_path
from report import Metric

STARTER = Path(__file__).parents[2] / "training" / "models" / "starter"
REVIEWS = 500


def int8_loss() -> dict[str, Metric]:
    """Return the metric."""
    with sample_path(find_product("sentiment")).open(encoding="utf-8", newline="") as file:
        reviews = [row["document"] for row in csv.DictReader(file, delimiter="\t")][:REVIEWS]
    exact, rounded = (bits_per_byte(reviews, int8=int8) for int8 in (False, True))
    metric = {
        "ours": round(rounded, 4),
        "baseline": round(exact, 4),
        "ratio": round(rounded / exact, 4),
        "unit": "bits per byte",
    }
    print("int8_bits_per_byte", metric)
    return {"int8_bits_per_byte": metric}


def bits_per_byte(texts: list[str], *, int8: bool) -> float:
    """Score texts, each after an end token, by the engine; int8 against float32."""
    tokenizer = load(STARTER)
    engine = Engine(load_checkpoint(STARTER, int8=int8), tokenizer, EngineLimits())
    events: list[object] = []
    for text in texts:
        ids = [tokenizer.eos_id, *tokenizer.encode(text)]
        engine.add(EngineRequest(ids, max_tokens=0, score_from=1, logprobs=0), events.append)
        while not engine.is_idle:
            engine.step()
    scored = (token for event in events if isinstance(event, PromptEvent) for token in event.tokens)
    nats = -math.fsum(token.logprob for token in scored if token.logprob is not None)
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)

"""What 8-bit integers cost in quality: bits per byte of the starter model on reviews that it was not trained on."""

import math
import os
from pathlib import Path

from hunmin_generation.engine.engine import Engine, EngineLimits
from hunmin_generation.engine.request import EngineRequest, PromptEvent
from hunmin_modeling.checkpoint import load_checkpoint
from hunmin_text.artefact import load

STARTER = Path(__file__).parents[2] / "training" / "models" / "starter"
REVIEWS = 500


def int8_loss() -> dict[str, dict[str, object]]:
    """Return the metric; nothing, and a word about it, where HUNMIN_DATA does not tell where reviews are."""
    if "HUNMIN_DATA" not in os.environ:
        print("int8_bits_per_byte is left out: set HUNMIN_DATA to the folder that holds nsmc/ratings_test.txt")
        return {}
    lines = (Path(os.environ["HUNMIN_DATA"]) / "nsmc" / "ratings_test.txt").read_text(encoding="utf-8").splitlines()[1:]
    reviews = [text for line in lines if (text := line.split("\t")[1].strip())][:REVIEWS]
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

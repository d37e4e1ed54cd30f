"""`make test-sentiment`: the product "sentiment" in full, by `hunmin tune` and over the API, as a user goes about it.

4,000 reviews are learned from, and each of the 2,000 that were kept back is answered by the served soft prompt.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.datasets import Shares
from hunmin_tuning.datasets.splits import assign
from studio_process import MODES

HUNMIN = str(Path(sys.executable).with_name("hunmin"))
FAR_AHEAD = 0.1  # of accuracy, before the better of the base model's own answers

pytestmark = [pytest.mark.timeout(7200), pytest.mark.parametrize("process", MODES[:1], indirect=True)]


def test_tuned_is_far_ahead_and_served_as_it_was_judged(studio, http, capfd):
    environ = os.environ | {"HUNMIN_API_KEY": studio.key, "HUNMIN_BASE_URL": studio.url}
    digest = _models(http)[studio.model]["digest"]
    with capfd.disabled():  # whoever waits sees how far it is
        subprocess.run([HUNMIN, "tune", "--product", "sentiment", "--model", studio.model], env=environ, check=True)
    (job,) = http.get("/studio/v1/tuning/jobs").raise_for_status().json()["data"]
    result = job["result"]
    ways = {way: result[way] for way in ("zero_shot", "few_shot", "tuned")}
    with capfd.disabled():
        print({way: f"{100 * judged['accuracy']:.2f} %" for way, judged in ways.items()})
    assert [judged["rows"] for judged in ways.values()] == [2000] * 3
    assert ways["tuned"]["accuracy"] > max(ways[way]["accuracy"] for way in ("zero_shot", "few_shot")) + FAR_AHEAD
    assert result["weights_digest"] == digest == _models(http)[studio.model]["digest"]

    product = http.get("/studio/v1/products/sentiment").raise_for_status().json()
    test = _test_part(http.get("/studio/v1/products/sentiment/sample").raise_for_status().text, product["shares"])
    verbalizers = product["template"]["verbalizers"]
    served = _answers(http, "sentiment", lambda review: {"document": review}, test, verbalizers)
    base = _answers(http, studio.model, lambda review: f"{review}\n평가:", test, verbalizers)
    for given, judged in ((served, ways["tuned"]), (base, ways["zero_shot"])):
        right = sum(label == row["label"] for label, row in zip(given, test, strict=True))
        assert right / len(test) == judged["accuracy"]
    assert served != base


def _models(http: Any) -> dict[str, Any]:
    return {model["name"]: model for model in http.get("/studio/v1/models").raise_for_status().json()["models"]}


def _test_part(sample: str, shares: dict[str, int]) -> list[dict[str, str]]:
    rows = list(csv.DictReader(StringIO(sample), delimiter="\t", quoting=csv.QUOTE_NONE))
    parts = assign(len(rows), Shares(**shares), 0, labels=[row["label"] for row in rows])
    return [row for row, part in zip(rows, parts, strict=True) if part == "test"]


def _answers(
    http: Any,
    model: str,
    prompt_of: Callable[[str], object],
    rows: list[dict[str, str]],
    verbalizers: dict[str, str],
) -> list[str]:
    """Return the label whose words are likeliest behind each review."""

    def answer(row: dict[str, str]) -> str:
        body = {"model": model, "prompt": prompt_of(row["document"]), "continuations": list(verbalizers.values())}
        scores = http.post("/studio/v1/score", json=body).raise_for_status().json()["scores"]
        logprobs = [score["logprob"] for score in scores]
        return list(verbalizers)[logprobs.index(max(logprobs))]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(answer, rows))

"""Topics and their schemas: what one release tells, the releases before and after it can read."""

import json
import re
import subprocess
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.event_schemas import incompatibilities, rendered, schema_of
from hunmin_contracts.events import TOPICS, USAGE, EventModel, Topic
from pydantic import ValidationError

SCHEMAS = Path(__file__).parents[1] / "schemas"
topics = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def usage(**changed: Any) -> dict[str, Any]:
    data = {"usage_id": "use_1", "request_id": "req_1", "account_id": "acct_1", "key_id": "key_1", "model": "m"}
    data |= {"endpoint": "/v1/completions", "started_at": "2026-11-28T00:00:00Z"}
    data |= {"outcome": "succeeded", "error_code": None}
    tokens = {"prompt_tokens": 1, "completion_tokens": 2, "backward_tokens": 0}
    return {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "hunmin/generation",
        "type": USAGE.name,
        "subject": "use_1",
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": data | tokens | changed,
    }


@topics
def test_topic_is_named_by_service_noun_and_version(topic: Topic[EventModel]) -> None:
    assert re.fullmatch(r"hunmin\.[a-z][a-z-]*\.[a-z][a-z-]*\.v[1-9][0-9]*", topic.name)
    assert topic.dead == f"{topic.name}.dead"
    assert topic.name.startswith(f"hunmin.{topic.service}.")
    assert topic.data.model_config["extra"] == "ignore"


@topics
def test_schema_is_committed(topic: Topic[EventModel]) -> None:
    path = SCHEMAS / f"{topic.name}.json"
    assert path.read_text(encoding="utf-8") == rendered(topic), f"write what rendered(topic) returns to {path}"


def test_no_schema_is_of_a_topic_that_is_gone() -> None:
    assert {path.stem for path in SCHEMAS.iterdir()} == {topic.name for topic in TOPICS}


@topics
def test_every_schema_that_was_ever_committed_is_still_spoken(topic: Topic[EventModel]) -> None:
    path = f"libs/contracts/schemas/{topic.name}.json"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(SCHEMAS.parents[2]), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        commits = git("log", "--format=%H", "--diff-filter=AM", "--", path).split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no git history here to compare with")
    for commit in commits:
        told = json.loads(git("show", f"{commit}:{path}"))
        assert incompatibilities(told, schema_of(topic)) == [], f"as of {commit[:10]}: declare the next version instead"


def changed(change: str) -> dict[str, Any]:
    schema = deepcopy(schema_of(USAGE))
    data = schema["$defs"]["UsageMetered"]
    match change:
        case "optional field":
            data["properties"]["cached_tokens"] = {"type": "integer", "default": 0}
        case "other words":
            data["description"] = "Otherwise."
            data["properties"]["model"]["title"] = "Model name"
        case "required field":
            data["properties"]["cached_tokens"] = {"type": "integer"}
            data["required"].append("cached_tokens")
        case "field gone":
            del data["properties"]["model"]
            data["required"].remove("model")
        case "field optional":
            data["required"].remove("model")
        case "another type":
            data["properties"]["prompt_tokens"]["type"] = "string"
        case "narrower":
            data["properties"]["model"]["maxLength"] = 5
        case "another value":
            schema["$defs"]["Outcome"]["enum"].append("paused")
        case "envelope":
            schema["properties"]["specversion"]["const"] = "2.0"
    return schema


@pytest.mark.parametrize("change", ["optional field", "other words"])
def test_change_that_others_can_read_is_taken(change: str) -> None:
    assert changed(change) != schema_of(USAGE)
    assert incompatibilities(schema_of(USAGE), changed(change)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("required field", "event.data.cached_tokens is required now"),
        ("field gone", "event.data.model is gone"),
        ("field optional", "model may be missing now"),
        ("another type", "prompt_tokens:type was"),
        ("narrower", "model:maxLength was null"),
        ("another value", "outcome:enum was"),
        ("envelope", "specversion:const was"),
    ],
)
def test_change_that_others_cannot_read_is_refused(change: str, said: str) -> None:
    found = "\n".join(incompatibilities(schema_of(USAGE), changed(change)))
    assert said in found, found


def test_reader_passes_over_what_it_does_not_know() -> None:
    document = usage(cached_tokens=3) | {"partitionkey": "x"}
    event = USAGE.envelope.model_validate_json(json.dumps(document))
    assert event.data.completion_tokens == 2


def test_refusal_does_not_quote_the_event() -> None:
    with pytest.raises(ValidationError) as refused:
        USAGE.envelope.model_validate_json(json.dumps(usage(prompt_tokens="비밀")))
    assert "비밀" not in str(refused.value)

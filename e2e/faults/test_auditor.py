"""What the auditor is to find, made up: it is believed only as far as it fails."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from auditor import Auditor, check, check_order

KILLED_S = 1000.0
ROW = {"account_id": "a", "corrects": None, "status": "cancelled", "prompt_tokens": 2, "duration_s": 1.0}


def row(completion_tokens: int, **fields: Any) -> dict[str, Any]:
    found = ROW | {
        "id": "use_1",
        "request_id": "r",
        "completion_tokens": completion_tokens,
        "started_s": KILLED_S - 0.5,
    }
    return found | fields


def message(key: str, event: str, offset: int, *, partition: int = 0, tokens: int = 1) -> dict[str, Any]:
    told = {"account_id": "a", "usage_id": key, "prompt_tokens": 0, "completion_tokens": tokens}
    return {"partition": partition, "offset": offset, "event": {"id": event, "subject": key, "data": told}}


@dataclass
class Written:
    """Records with these rows of usage and these messages, all of which have had their effect."""

    usage: list[dict[str, Any]]
    told: list[dict[str, Any]] = field(default_factory=list)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        if "gateway.usage" in statement:
            return self.usage
        if "event_processed" in statement:
            return [{"event_id": each["event"]["id"]} for each in self.told]
        if "event_attempts" in statement:
            return [{"count": 0}]
        used = sum(each["prompt_tokens"] + each["completion_tokens"] for each in self.usage)
        return [{"account_id": "a", "name": "tokens_per_month", "used": used, "reserved": 0}]

    def messages(self, _: str) -> list[dict[str, Any]]:
        return self.told


def audit(records: Written, *killed_s: float) -> dict[str, int]:
    return check(Auditor(records), [], generation_killed_s=killed_s, clients=1)


def test_what_is_told_needs_no_excuse() -> None:
    told = [message("use_1", "evt_1", 0, tokens=4), message("use_1", "evt_2", 1, tokens=3)]
    assert audit(Written([row(5)], told))["untold"] == 0


@pytest.mark.parametrize("lost", [[], [message("use_1", "evt_1", 0, tokens=4)]], ids=["all", "of one call"])
def test_a_lost_event_is_excused_only_by_a_kill_of_generation_at_that_time(lost: list[dict[str, Any]]) -> None:
    records = Written([row(5)], lost)
    assert audit(records, KILLED_S)["untold"] == 1
    assert audit(records, KILLED_S + 2)["untold"] == 1  # the exchange had just ended
    for killed_s in [(), (KILLED_S - 10,), (KILLED_S + 10,)]:
        with pytest.raises(AssertionError, match="nobody told of"):
            audit(records, *killed_s)


def test_a_correction_that_hides_a_lost_event_is_found() -> None:
    correction = row(-3, id="use_1_c", corrects="use_1", prompt_tokens=0)
    with pytest.raises(AssertionError, match="nobody told of"):
        audit(Written([row(5), correction], [message("use_1", "evt_1", 0, tokens=4)]))


def test_a_kill_excuses_no_more_than_there_are_clients() -> None:
    two = [row(5), row(5, id="use_2", request_id="s")]
    with pytest.raises(AssertionError, match="more than ran"):
        audit(Written(two), KILLED_S)
    assert audit(Written(two), KILLED_S, KILLED_S)["untold"] == 2


def test_a_computed_token_that_is_not_settled_is_found() -> None:
    with pytest.raises(AssertionError, match="use_1"):
        audit(Written([row(5)], [message("use_1", "evt_1", 0, tokens=8)]), KILLED_S)


def test_order_is_that_of_the_first_time_that_each_event_came() -> None:
    came = [message("use_1", event, offset) for offset, event in enumerate(["evt_0", "evt_1", "evt_2", "evt_1"])]
    assert check_order(came, {"use_1": ["evt_1", "evt_2"]}) == 1
    with pytest.raises(AssertionError, match="out of order"):
        check_order(came, {"use_1": ["evt_2", "evt_1"]})
    with pytest.raises(AssertionError, match="out of order"):
        check_order(came, {"use_1": ["evt_1", "evt_2", "evt_3"]})


def test_a_key_in_two_partitions_is_found() -> None:
    came = [message("use_1", "evt_1", 0), message("use_1", "evt_2", 0, partition=1)]
    with pytest.raises(AssertionError, match="several partitions"):
        check_order(came, {})

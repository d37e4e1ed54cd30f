"""What a limit's standing means to a principal: headers and refusals. No I/O."""

from datetime import UTC, datetime, timedelta

import pytest
from hunmin_contracts.errors import ErrorCode, Problem
from hunmin_contracts.quotas import LimitName
from hunmin_gateway.clova import envelope
from hunmin_gateway.quotas.amounts import Amounts
from hunmin_gateway.quotas.state import Asked, LimitState, duration, rate_limit_headers, refusal

NOW = datetime(2026, 11, 28, 12, 0, 17, 500_000, tzinfo=UTC)


def state(name: LimitName = LimitName.TOKENS_PER_MINUTE, *, reset_s: float | None = 42.5, **fields: object):
    given = {"model": "*", "purpose": "*", "value": 100, "used": 60, "reserved": 30}
    resets_at = None if reset_s is None else NOW + timedelta(seconds=reset_s)
    return LimitState(name=name, resets_at=resets_at, read_at=NOW, **given | fields)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.2, "1s"), (42.5, "43s"), (60, "1m0s"), (361, "6m1s"), (3600, "1h0m0s"), (260_000, "72h13m20s")],
)
def test_a_duration_is_written_as_go_does_and_never_too_short(seconds, written):
    assert duration(seconds) == written


def test_who_waits_as_told_does_not_come_too_early():
    assert refusal([Asked(state(), 11)]).details["retry_after_s"] == 43
    assert refusal([Asked(state(reset_s=0.001), 11)]).details["retry_after_s"] == 1


def test_the_limit_that_is_in_the_way_for_longest_is_told_of():
    month = state(LimitName.TOKENS_PER_MONTH, reset_s=10_000.0)
    running = state(LimitName.CONCURRENT_REQUESTS, reset_s=None, value=1, used=0, reserved=1)
    hopeless = state(value=10, used=0, reserved=0)
    refused = [Asked(running, 1), Asked(state(), 11), Asked(month, 11)]
    assert refusal(refused).details["limit"] == LimitName.TOKENS_PER_MONTH
    error = refusal([*refused, Asked(hopeless, 11)])
    assert error.details["value"] == 10
    assert "retry_after_s" not in error.details
    assert refusal(refused[:1]).details["retry_after_s"] == 1


def test_a_refusal_says_for_which_model_and_purpose():
    error = refusal([Asked(state(model="starter", purpose="score"), 11)])
    assert error.code is ErrorCode.QUOTA_EXCEEDED
    assert "limit tokens_per_minute for the model starter for the purpose score is 100" in error.message


def test_clova_s_code_for_it_is_that_of_an_exceeded_rate():
    problem = Problem.of(refusal([Asked(state(), 11)]), request_id="req_1")
    response = envelope.error_response(problem)
    assert response.status_code == 429
    assert b'"code":"42901"' in response.body
    assert b'"result"' not in response.body


def test_headers_never_tell_of_less_than_nothing_or_of_what_runs_at_a_time():
    running = state(LimitName.CONCURRENT_REQUESTS, reset_s=None)
    assert rate_limit_headers([running]) == {}
    lowered = rate_limit_headers([running, state(value=50)])
    assert lowered["x-ratelimit-remaining-tokens"] == "0"
    assert "x-ratelimit-limit-requests" not in lowered


def test_of_equally_tight_limits_the_one_that_lasts_longer_is_told_of():
    month = state(LimitName.TOKENS_PER_MONTH, reset_s=10_000.0)
    assert rate_limit_headers([state(), month])["x-ratelimit-reset-tokens"] == "2h46m40s"


def test_nothing_stays_taken_of_what_runs_at_a_time():
    amounts = Amounts(requests=1, tokens=5)
    assert amounts.reserved()[LimitName.CONCURRENT_REQUESTS] == 1
    assert LimitName.CONCURRENT_REQUESTS not in amounts.used()
    assert LimitName.BACKWARD_TOKENS_PER_MONTH not in amounts.reserved()

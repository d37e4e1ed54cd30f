"""The states of batches, how long a line waits, and what half a token is: no I/O."""

from itertools import pairwise
from typing import Any

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_gateway.batches.patience import MAX_ATTEMPTS, Wait, patience
from hunmin_gateway.batches.states import FOLLOWERS, Status, sources
from hunmin_gateway.quotas.amounts import Amounts
from hypothesis import given
from hypothesis import strategies as st


def error(code: ErrorCode, **details: Any) -> HunminError:
    return HunminError(code, "no", **details)


class TestStates:
    def test_every_one_is_reached_and_leads_to_an_end(self) -> None:
        reached = {Status.VALIDATING}
        while more := {after for before in reached for after in FOLLOWERS[before]} - reached:
            reached |= more
        assert reached == set(Status)
        ends = [status for status in Status if status.is_final]
        assert ends == [Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED]

    def test_none_follows_itself_even_through_others(self) -> None:
        def after(status: Status) -> set[Status]:
            return {later for one in FOLLOWERS[status] for later in {one} | after(one)}

        assert all(status not in after(status) for status in Status)

    @given(st.data())
    def test_any_way_through_them_ends_once(self, data: st.DataObject) -> None:
        way = [Status.VALIDATING]
        while not way[-1].is_final:
            way.append(data.draw(st.sampled_from(sorted(FOLLOWERS[way[-1]]))))
        assert all(before in sources(after) for before, after in pairwise(way))
        assert len(way) <= 4


class TestPatience:
    @pytest.mark.parametrize("code", [ErrorCode.QUOTA_EXCEEDED, ErrorCode.OVERLOADED])
    @pytest.mark.parametrize(("told_s", "pause_s"), [(1, 1.0), (7, 7.0), (0, 1.0), (86_400, 60.0)])
    def test_for_want_of_room_the_batch_waits_and_no_attempt_counts(
        self, code: ErrorCode, told_s: int, pause_s: float
    ) -> None:
        refused = error(code, retry_after_s=told_s)
        assert patience(refused, MAX_ATTEMPTS + 1) == Wait(pause_s=pause_s, is_free=True)

    def test_what_never_has_room_fails(self) -> None:
        assert patience(error(ErrorCode.QUOTA_EXCEEDED), 1) is None
        assert patience(error(ErrorCode.OVERLOADED), 1) is not None

    @pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED])
    def test_what_is_away_is_tried_again_later_and_later(self, code: ErrorCode) -> None:
        waits = [patience(error(code), attempt) for attempt in range(1, MAX_ATTEMPTS + 1)]
        assert waits.pop() is None
        delays = [wait.delay_s for wait in waits if wait is not None]
        assert delays == sorted(delays)
        assert (delays[0], delays[-1], len(delays)) == (1, 600, MAX_ATTEMPTS - 1)
        assert 30 * 60 < sum(delays) < 60 * 60
        assert not any(wait.is_free for wait in waits if wait is not None)

    @pytest.mark.parametrize(
        "failed",
        [error(ErrorCode.INVALID_PARAMETER), error(ErrorCode.INTERNAL), RuntimeError()],
    )
    def test_what_is_wrong_with_the_line_fails(self, failed: Exception) -> None:
        assert patience(failed, 1) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_half_is_never_more_than_was_reserved(reserved: int, used: int, backward: int) -> None:
    most = Amounts(1, max(reserved, used), backward).halved()
    spent = Amounts(1, min(reserved, used), backward).halved()
    assert spent.tokens <= most.tokens
    assert 0 <= 2 * spent.tokens - min(reserved, used) <= 1
    assert (spent.requests, spent.backward_tokens) == (1, (backward + 1) // 2)

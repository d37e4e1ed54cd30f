"""The machine of a job under every order of events: it ends once, and never both cancelled and published."""

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_tuning.jobs.states import CLAIMED, ENDED, Event, IllegalEvent, Standing, after
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

MAX_ATTEMPTS = 3


class OneJob(RuleBasedStateMachine):
    """A job, its process and its soft prompt, as a runner leaves them that keeps the rules and may die at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing()
        self.has_process = False  # in the world, whatever the machine believes
        self.is_published = False
        self.is_cancel_accepted = False
        self.ends = 0

    def happen(self, event: Event) -> None:
        before = self.standing
        self.standing = after(before, event, max_attempts=MAX_ATTEMPTS)
        self.ends += self.standing.is_ended and not before.is_ended

    @rule()
    def cancel(self) -> None:
        if self.standing.state != "cancelled" and (self.standing.is_publishing or self.standing.is_ended):
            with pytest.raises(HunminError) as refusal:
                self.happen(Event.CANCEL)
            assert refusal.value.code == ErrorCode.CONFLICT
        else:
            self.happen(Event.CANCEL)
            self.is_cancel_accepted = True

    @precondition(lambda self: self.standing.state == "queued")
    @rule()
    def claim(self) -> None:
        self.happen(Event.CLAIM)

    @precondition(lambda self: self.standing.state == "preparing" and not self.has_process)
    @rule()
    def start(self) -> None:
        self.happen(Event.START)
        self.has_process = self.standing.state == "running"

    @precondition(lambda self: self.standing.state == "preparing" and self.has_process)
    @rule()
    def adopt(self) -> None:
        self.happen(Event.ADOPT)

    @precondition(lambda self: self.standing.state in CLAIMED)
    @rule(event=st.sampled_from([Event.FAIL, Event.BREAK, Event.RELEASE]))
    def break_off(self, event: Event) -> None:
        self.has_process = False
        self.happen(event)

    @precondition(lambda self: self.standing.state in CLAIMED and self.standing.is_cancel_wanted)
    @rule()
    def stop(self) -> None:
        self.has_process = False
        self.happen(Event.STOP)

    @precondition(lambda self: self.standing.state in CLAIMED)
    @rule()
    def lose_the_lease(self) -> None:
        self.happen(Event.LAPSE)

    @precondition(lambda self: self.has_process)
    @rule()
    def process_dies(self) -> None:
        self.has_process = False

    @precondition(lambda self: self.standing.state == "running" and not self.has_process)
    @rule(crashes_between=st.booleans())
    def publish(self, crashes_between: bool) -> None:
        self.happen(Event.PUBLISH)
        if not self.standing.is_ended:
            self.is_published = True
            if not crashes_between:
                self.happen(Event.SUCCEED)

    @rule(event=st.sampled_from([event for event in Event if event is not Event.CANCEL]))
    def nothing_happens_to_a_job_that_ended(self, event: Event) -> None:
        if self.standing.is_ended:
            with pytest.raises(IllegalEvent):
                after(self.standing, event, max_attempts=MAX_ATTEMPTS)

    @invariant()
    def ends_once(self) -> None:
        assert self.ends == self.standing.is_ended

    @invariant()
    def leaves_no_process(self) -> None:
        assert not (self.standing.is_ended and self.has_process)

    @invariant()
    def is_never_cancelled_and_published(self) -> None:
        assert not (self.standing.state == "cancelled" and self.is_published)
        assert not (self.standing.state == "succeeded" and not self.is_published)

    @invariant()
    def accepted_cancel_ends_in_cancelled(self) -> None:
        if self.is_cancel_accepted:
            assert self.standing.is_cancel_wanted
            assert self.standing.state not in ("succeeded", "failed")

    @invariant()
    def counts_attempts_from_one(self) -> None:
        assert self.standing.attempt >= 1


TestOneJob = OneJob.TestCase
TestOneJob.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


def run(*events: Event) -> Standing:
    standing = Standing()
    for event in events:
        standing = after(standing, event, max_attempts=MAX_ATTEMPTS)
    return standing


class TestAttempts:
    def test_as_many_crashes_as_attempts_fail_it(self):
        once = [Event.CLAIM, Event.START, Event.BREAK]
        assert run(*once * 2) == Standing("queued", attempt=3)
        assert run(*once * 3).state == "failed"

    def test_an_orderly_end_of_the_runner_costs_none(self):
        assert run(*[Event.CLAIM, Event.START, Event.RELEASE] * 9) == Standing("queued", attempt=1)

    def test_a_process_that_outlived_its_runner_goes_on_with_its_attempt(self):
        assert run(*[Event.CLAIM, Event.START], *[Event.LAPSE, Event.CLAIM, Event.ADOPT] * 9).attempt == 1

    def test_a_process_that_died_with_its_runner_costs_one(self):
        assert run(Event.CLAIM, Event.START, Event.LAPSE, Event.CLAIM, Event.START).attempt == 2


class TestCancel:
    def test_of_a_queued_job_is_at_once(self):
        assert run(Event.CANCEL).state == "cancelled"
        assert run(Event.CLAIM, Event.START, Event.BREAK, Event.CANCEL).state == "cancelled"

    def test_of_a_job_that_may_have_left_a_process_waits_until_someone_looked(self):
        lost = run(Event.CLAIM, Event.START, Event.LAPSE, Event.CANCEL)
        assert (lost.state, lost.is_cancel_wanted) == ("queued", True)
        assert run(Event.CLAIM, Event.START, Event.LAPSE, Event.CANCEL, Event.CLAIM, Event.STOP).state == "cancelled"

    @pytest.mark.parametrize("events", [[Event.CLAIM], [Event.CLAIM, Event.START]])
    @pytest.mark.parametrize("end", [Event.STOP, Event.FAIL, Event.BREAK, Event.RELEASE])
    def test_of_a_claimed_job_is_a_request_that_every_end_heeds(self, events, end):
        wanted = run(*events, Event.CANCEL)
        assert wanted.state in CLAIMED
        assert after(wanted, end, max_attempts=MAX_ATTEMPTS).state == "cancelled"

    def test_comes_too_late_once_it_is_published(self):
        publishing = run(Event.CLAIM, Event.START, Event.PUBLISH)
        for standing in (publishing, after(publishing, Event.LAPSE, max_attempts=MAX_ATTEMPTS)):
            with pytest.raises(HunminError, match="being published"):
                after(standing, Event.CANCEL, max_attempts=MAX_ATTEMPTS)

    def test_of_a_cancelled_job_changes_nothing(self):
        assert run(Event.CANCEL, Event.CANCEL) == run(Event.CANCEL)


def test_ended_and_claimed_are_the_states_but_queued():
    assert {"preparing", "running", "succeeded", "failed", "cancelled"} == ENDED | CLAIMED

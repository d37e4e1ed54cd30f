"""What the engine answers: events in order, echo and scores, stops, counts; and who suffers when something fails."""

import math
from itertools import count

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ChunkEvent, PromptEvent, Sampling, UsageEvent
from hunmin_generation.engine.engine import Engine
from hunmin_generation.engine.request import Completion, EngineRequest, Event
from hunmin_modeling.soft_prompt import SoftPromptRows
from hunmin_modeling.testing import tiny_model

GREEDY = Sampling(temperature=0)
VARIED = Sampling(temperature=2, seed=1)  # tiny models repeat themselves when greedy
PROMPT = [5, 6, 7, 8, 9]


def add(engine: Engine, **fields: object) -> list[Event | HunminError]:
    """Queue a request (greedy, past end tokens, 8 tokens, unless told otherwise) and return where its events come."""
    events: list[Event | HunminError] = []
    request = {"prompt": PROMPT, "sampling": GREEDY, "max_tokens": 8, "ignore_end": True} | fields
    engine.add(EngineRequest(**request), events.append)  # type: ignore[arg-type]
    return events


def run(engine: Engine) -> None:
    for _ in range(1000):
        if engine.is_idle:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")


def complete(engine: Engine, **fields: object) -> list[Event]:
    events = add(engine, **fields)
    run(engine)
    return events  # type: ignore[return-value]


def chunks(events: list[Event], index: int = 0) -> list[ChunkEvent]:
    return [event for event in events if isinstance(event, ChunkEvent) and event.index == index]


def text(events: list[Event], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks(events, index))


class TestEvents:
    def test_come_as_prompt_chunks_usage(self, new_engine) -> None:
        first, *middle, last = complete(new_engine())
        assert first == PromptEvent(prompt_tokens=5)
        assert [chunk.completion_tokens for chunk in middle] == list(range(1, 9))
        assert [chunk.finish_reason for chunk in middle] == [None] * 7 + ["length"]
        assert last == UsageEvent(prompt_tokens=5, completion_tokens=8)

    def test_several_completions_differ_by_their_seed_and_are_counted_together(self, new_engine) -> None:
        hot = Sampling(temperature=2, seed=41)
        events = complete(new_engine(), n=3, sampling=hot)
        texts = [text(events, index) for index in range(3)]
        assert len(set(texts)) == 3
        assert texts[2] == text(complete(new_engine(), sampling=hot.model_copy(update={"seed": 43})))
        assert events[-1] == UsageEvent(prompt_tokens=5, completion_tokens=24)

    def test_without_a_seed_no_two_requests_are_alike(self, new_engine) -> None:
        engine = new_engine()
        assert text(complete(engine, sampling=Sampling(temperature=2))) != text(
            complete(engine, sampling=Sampling(temperature=2))
        )

    def test_without_max_tokens_it_goes_on_while_tokens_fit(self, new_engine) -> None:
        assert complete(new_engine(), max_tokens=None)[-1] == UsageEvent(prompt_tokens=5, completion_tokens=91)
        assert complete(new_engine(blocks=8), max_tokens=None)[-1] == UsageEvent(prompt_tokens=5, completion_tokens=27)

    def test_an_end_token_stops_it_and_is_counted_but_not_shown(self, new_engine, vocabulary) -> None:
        engine = new_engine()
        seeds = (Sampling(temperature=2, seed=seed) for seed in range(200))
        events = next(
            events
            for sampling in seeds
            if chunks(events := complete(engine, sampling=sampling, ignore_end=False))[-1].finish_reason == "stop"
        )
        assert 0 not in vocabulary.ids(text(events))
        assert events[-1].completion_tokens == len(text(events)) + 1

    def test_a_stop_string_ends_the_text_before_it(self, new_engine) -> None:
        whole = text(complete(new_engine(), sampling=VARIED))
        events = complete(new_engine(), sampling=VARIED, stop=(whole[4:6],))
        assert text(events) == whole[:4]
        assert chunks(events)[-1].finish_reason == "stop"
        assert events[-1] == UsageEvent(prompt_tokens=5, completion_tokens=6)


class TestScores:
    @pytest.fixture
    def logprobs(self) -> torch.Tensor:
        """The model's own log-probabilities after each token of the prompt [5, vocab]."""
        with torch.no_grad():
            return tiny_model("gpt2")(torch.tensor([PROMPT])).logits[0].log_softmax(-1)

    def test_each_token_comes_with_its_logprob_and_the_best(self, new_engine, logprobs, vocabulary) -> None:
        events = complete(new_engine(), logprobs=3, sampling=Sampling(temperature=1.5, seed=3))
        tokens = [token for chunk in chunks(events) for token in chunk.tokens]
        assert [token.text for token in tokens] == list(text(events))
        assert tokens[0].logprob == pytest.approx(logprobs[4, tokens[0].id].item(), abs=1e-4)
        assert [top.id for top in tokens[0].top] == logprobs[4].topk(3).indices.tolist()
        assert bytes(tokens[0].top[0].bytes) == vocabulary.token_bytes(tokens[0].top[0].id)

    def test_echo_gives_the_prompt_back(self, new_engine, vocabulary) -> None:
        assert complete(new_engine(), echo=True)[0] == PromptEvent(prompt_tokens=5, text=vocabulary.decode(PROMPT))

    @pytest.mark.parametrize("budget", [2, 64])
    def test_echo_scores_the_prompt(self, new_engine, logprobs, budget: int) -> None:
        engine = new_engine(max_batch_tokens=budget, max_running=2)
        events = complete(engine, echo=True, logprobs=2, max_tokens=0)
        prompt, chunk, usage = events
        assert [token.id for token in prompt.tokens] == PROMPT
        assert prompt.tokens[0].logprob is None
        expected = [logprobs[place, token].item() for place, token in enumerate(PROMPT[1:])]
        assert [token.logprob for token in prompt.tokens[1:]] == pytest.approx(expected, abs=1e-4)
        assert all(len(token.top) == 2 for token in prompt.tokens[1:])
        assert chunk == ChunkEvent(index=0, text="", completion_tokens=0, finish_reason="length")
        assert usage == UsageEvent(prompt_tokens=5, completion_tokens=0)

    @pytest.mark.parametrize("head_start", [1, 19])  # preempted while it decodes, and in the middle of its prompt
    def test_scores_survive_preemption(self, new_engine, head_start: int) -> None:
        engine = new_engine(blocks=10, max_batch_tokens=2, max_running=2)
        scored = {"prompt": list(range(1, 13)), "max_tokens": 20, "echo": True, "logprobs": 0}
        alone = complete(new_engine(), **scored)
        older = add(engine, max_tokens=30)
        for _ in range(head_start):
            engine.step()
        events = add(engine, **scored)
        run(engine)
        assert engine.scheduler.preemptions > 0
        assert isinstance(older[-1], UsageEvent)
        assert text(events) == text(alone)
        found, expected = ([token.logprob for token in one[0].tokens[1:]] for one in (events, alone))
        assert found == pytest.approx(expected, abs=1e-4)

    def test_tokens_of_a_stop_string_are_not_shown(self, new_engine) -> None:
        whole = text(complete(new_engine(), sampling=VARIED))
        events = complete(new_engine(), sampling=VARIED, stop=(whole[4:6],), logprobs=0)
        assert "".join(token.text for chunk in chunks(events) for token in chunk.tokens) == whole[:4]


class TestRefused:
    @pytest.mark.parametrize(("prompt", "max_tokens"), [([1] * 96, None), ([1] * 90, 7), ([1] * 97, 0), ([1], 96)])
    def test_what_can_never_fit_names_both_lengths(self, new_engine, prompt: list[int], max_tokens: int | None) -> None:
        with pytest.raises(HunminError, match=rf"{len(prompt)} tokens.* 96 tokens") as refused:
            add(new_engine(), prompt=prompt, max_tokens=max_tokens)
        assert refused.value.code == ErrorCode.PROMPT_TOO_LONG
        assert refused.value.details["prompt_tokens"] == len(prompt)
        assert refused.value.details["context_length"] == 96

    @pytest.mark.parametrize(("prompt", "max_tokens"), [([1] * 96, 0), ([1] * 95, None), ([1], 95)])
    def test_what_just_fits_is_served(self, new_engine, prompt: list[int], max_tokens: int | None) -> None:
        assert isinstance(complete(new_engine(), prompt=prompt, max_tokens=max_tokens)[-1], UsageEvent)

    @pytest.mark.parametrize("prompt", [[], [97], [1, -1]])
    def test_a_prompt_that_is_none(self, new_engine, prompt: list[int]) -> None:
        with pytest.raises(HunminError) as refused:
            add(new_engine(), prompt=prompt)
        assert refused.value.code == ErrorCode.INVALID_PARAMETER


class TestFailures:
    @pytest.fixture
    def engine(self, new_engine) -> Engine:
        engine = new_engine()
        self.errors: list[Exception] = []
        engine._on_failure = self.errors.append
        return engine

    def assert_failed(self, events: list[Event | HunminError]) -> None:
        assert isinstance(events[-1], HunminError)
        assert events[-1].code == ErrorCode.INTERNAL
        assert len(self.errors) == 1

    def assert_whole(self, engine: Engine) -> None:
        assert engine.is_idle
        assert engine.scheduler.blocks.usage == 0
        assert isinstance(complete(engine)[-1], UsageEvent)

    def test_one_bad_completion_ends_its_request_alone(self, engine, monkeypatch: pytest.MonkeyPatch) -> None:
        advance = Completion.advance

        def fail_on_nine(completion: Completion, choice: object) -> ChunkEvent | None:
            if completion.sequence.prompt_length == 9:
                raise ZeroDivisionError
            return advance(completion, choice)

        monkeypatch.setattr(Completion, "advance", fail_on_nine)
        bad, good = add(engine, prompt=[1] * 9, n=2), add(engine)
        run(engine)
        self.assert_failed(bad)
        assert text(good) == text(complete(engine))
        self.assert_whole(engine)

    def test_rows_that_are_not_numbers_end_their_request_alone(self, engine) -> None:
        spoilt = SoftPromptRows("sp_spoilt", torch.full((2, engine.checkpoint.config.hidden_size), math.nan))
        bad = add(engine, prompt=[-1, -2, *PROMPT], soft_prompt=spoilt)
        good = add(engine, max_tokens=1)
        run(engine)
        self.assert_failed(bad)
        assert isinstance(good[-1], UsageEvent)
        # whoever is given those blocks next, or has his own beside them, sees nothing of it
        alone = text(complete(engine, max_tokens=30))
        together = [add(engine, max_tokens=30), add(engine, prompt=[1, 2], max_tokens=20)]
        run(engine)
        assert text(together[0]) == alone

    def test_a_failed_forward_ends_the_requests_of_that_batch(self, engine, monkeypatch) -> None:
        events = add(engine)
        engine.step()
        with monkeypatch.context() as broken:
            broken.setattr(type(engine.checkpoint), "forward", lambda *_, **__: 1 / 0)
            engine.step()
        self.assert_failed(events)
        self.assert_whole(engine)

    def test_ending_all_between_two_steps_leaves_what_was_computed(self, engine) -> None:
        prompt = list(range(1, 16))
        expected = text(complete(engine, prompt=prompt, max_tokens=1))
        engine.fail_all(HunminError(ErrorCode.UNAVAILABLE, "The engine ends."))
        assert text(complete(engine, prompt=prompt, max_tokens=1)) == expected
        assert engine.scheduler.cached_tokens > 0

    @pytest.mark.parametrize("place", ["take", "share", "publish"])
    def test_a_fault_amid_scheduling_leaves_nothing_to_be_found(self, engine, new_engine, monkeypatch, place) -> None:
        prompt, pool, calls = list(range(1, 16)), engine.scheduler.blocks, count(1)
        expected, original = text(complete(new_engine(), prompt=prompt)), getattr(pool, place)

        def fail_the_second_time(*given: object, **named: object) -> object:
            if next(calls) == 2:
                raise ZeroDivisionError
            return original(*given, **named)

        both = [add(engine, prompt=prompt), add(engine, prompt=prompt)]
        with monkeypatch.context() as broken:
            broken.setattr(pool, place, fail_the_second_time)
            with pytest.raises(ZeroDivisionError):
                engine.step()
        engine.fail_all(HunminError(ErrorCode.INTERNAL, "The engine failed."))
        assert all(isinstance(events[-1], HunminError) for events in both)
        assert text(complete(engine, prompt=prompt)) == expected
        assert engine.scheduler.cached_tokens == 0
        self.assert_whole(engine)


class TestCancel:
    def test_frees_the_blocks_at_once_and_says_no_more(self, new_engine) -> None:
        engine = new_engine()
        events: list[Event | HunminError] = []
        generation = engine.add(EngineRequest(PROMPT, n=2, max_tokens=50, ignore_end=True), events.append)
        engine.step()
        engine.step()
        count = len(events)
        engine.cancel(generation)
        engine.cancel(generation)
        engine.step()
        assert engine.is_idle
        assert engine.scheduler.blocks.usage == 0
        assert len(events) == count
        assert (engine.counts.cancelled, engine.counts.finished) == (1, 0)

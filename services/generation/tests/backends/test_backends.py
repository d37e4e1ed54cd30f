"""The contract of a LanguageModel, on every backend: the same answers, the same counts, the same refusals."""

import asyncio
import time
from contextlib import aclosing
from itertools import accumulate
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import ChunkEvent, PromptEvent, Sampling, TokenLogprob, UsageEvent
from hunmin_generation.engine.request import EngineRequest, Event
from hunmin_modeling.soft_prompt import SoftPromptRows

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

GREEDY = Sampling(temperature=0)
PROMPTS = ("이 영화는 ", "정말 재미있", "배우가 좋다. 그런데 ", "a")
LENGTH = 24


def asked(model: Any, text: str, **fields: Any) -> EngineRequest:
    given: dict[str, Any] = {"sampling": GREEDY, "max_tokens": LENGTH, "salt": "acct_1"}
    return EngineRequest(**{"prompt": model.tokenizer.encode(text)} | given | fields)


async def events(on: Any, request: EngineRequest, text: str | None) -> list[Event]:
    async with aclosing(on.backend.generate(request, text=text)) as found:
        return [event async for event in found]


async def generated(on: Any, model: Any, text: str, **fields: Any) -> list[Event]:
    return await events(on, asked(model, text, **fields), text)


async def refused(on: Any, request: EngineRequest, text: str | None = None) -> HunminError:
    with pytest.raises(HunminError) as error:
        await events(on, request, text)
    return error.value


def chunks(found: list[Event], index: int = 0) -> list[ChunkEvent]:
    return [event for event in found if isinstance(event, ChunkEvent) and event.index == index]


def joined(found: list[Event], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks(found, index))


def tokens(found: list[Event]) -> list[TokenLogprob]:
    return [token for chunk in chunks(found) for token in chunk.tokens]


def expected_ids(model: Any, *, ids: list[int] | None = None, embedded: torch.Tensor | None = None) -> list[int]:
    """What transformers generates greedily after `ids`, or after what they would be embedded as."""
    given = {"input_ids": torch.tensor([ids])} if embedded is None else {"inputs_embeds": embedded[None]}
    length = len(ids) if embedded is None and ids is not None else 0
    mask = torch.ones(1, next(iter(given.values())).shape[1])
    made = model.reference.generate(
        **given, attention_mask=mask, max_new_tokens=LENGTH, do_sample=False, pad_token_id=0
    )
    return made[0, length:].tolist()


class TestGreedy:
    @pytest.mark.parametrize("text", PROMPTS)
    async def test_tokens_are_those_of_transformers(self, on: Any, model: Any, text: str) -> None:
        prompt = model.tokenizer.encode(text)
        expected = expected_ids(model, ids=prompt)
        assert model.tokenizer.eos_id not in expected
        found = await generated(on, model, text, logprobs=0)
        assert [token.id for token in tokens(found)] == expected
        assert joined(found) == model.tokenizer.decode(expected)
        assert chunks(found)[-1].finish_reason == "length"

    async def test_several_at_once_equal_each_alone(self, on: Any, model: Any) -> None:
        alone = [joined(await generated(on, model, text)) for text in PROMPTS]
        together = await asyncio.gather(*(generated(on, model, text) for text in PROMPTS))
        assert [joined(found) for found in together] == alone

    async def test_events_come_in_order_with_exact_counts(self, on: Any, model: Any) -> None:
        text = PROMPTS[0]
        first, *middle, last = await generated(on, model, text)
        count = len(model.tokenizer.encode(text))
        assert first == PromptEvent(prompt_tokens=count)
        assert last == UsageEvent(prompt_tokens=count, completion_tokens=LENGTH)
        counts = [event.completion_tokens for event in middle if isinstance(event, ChunkEvent)]
        assert counts == sorted(counts)
        assert len(counts) > LENGTH // 4  # a stream, not an answer in one piece

    async def test_nothing_to_generate(self, on: Any, model: Any) -> None:
        found = await generated(on, model, PROMPTS[0], max_tokens=0)
        count = len(model.tokenizer.encode(PROMPTS[0]))
        assert found == [
            PromptEvent(prompt_tokens=count),
            ChunkEvent(index=0, text="", completion_tokens=0, finish_reason="length"),
            UsageEvent(prompt_tokens=count, completion_tokens=0),
        ]


@pytest.fixture(scope="module")
def ending(model: Any) -> tuple[str, list[int]]:
    """Search for a text after which the model ends, and return it with the ids that follow."""
    texts = (f"{PROMPTS[place % 4]}{place}" for place in range(200))
    found = ((text, expected_ids(model, ids=model.tokenizer.encode(text))) for text in texts)
    return next((text, ids) for text, ids in found if ids[-1] == model.tokenizer.eos_id)


class TestEnd:
    async def test_an_end_token_ends_the_text_and_is_told_apart(self, on: Any, model: Any, ending: Any) -> None:
        end, (text, expected) = model.tokenizer.eos_id, ending
        found = await generated(on, model, text, logprobs=0)
        last = chunks(found)[-1]
        assert [token.id for token in tokens(found)] == expected[:-1]
        assert [token.id for token in last.withheld] == [end]
        assert (last.finish_reason, last.stop, last.completion_tokens) == ("stop", None, len(expected))
        assert joined(found) == model.tokenizer.decode(expected[:-1])


class TestStop:
    async def test_the_text_ends_before_a_stop_string(self, on: Any, model: Any) -> None:
        whole = await generated(on, model, PROMPTS[0], logprobs=0)
        text, ids = joined(whole), [token.id for token in tokens(whole)]
        stop = text[6:8]
        decoder = model.tokenizer.decoder()
        grown = list(accumulate(map(decoder.push, ids)))
        needed = 1 + next(place for place, part in enumerate(grown) if stop in part)
        found = await generated(on, model, PROMPTS[0], stop=(stop, "없는 말"))
        assert joined(found) == text[: text.index(stop)]
        assert chunks(found)[-1].finish_reason == "stop"
        assert isinstance(found[-1], UsageEvent)
        assert found[-1].completion_tokens == needed

    async def test_every_token_drawn_is_reported_or_withheld(self, on: Any, model: Any) -> None:
        whole = joined(await generated(on, model, PROMPTS[0]))
        for stop in (whole[6:8], whole[6]):
            found = await generated(on, model, PROMPTS[0], stop=("없는 말", stop), logprobs=0)
            last = chunks(found)[-1]
            assert last.stop == stop
            assert len(tokens(found)) + len(last.withheld) == last.completion_tokens


class TestLogprobs:
    async def test_are_those_of_the_model_s_own_distribution(self, on: Any, model: Any) -> None:
        prompt = model.tokenizer.encode(PROMPTS[1])
        found = tokens(await generated(on, model, PROMPTS[1], logprobs=3))
        ids = [token.id for token in found]
        with torch.no_grad():
            logits = model.reference(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        for row, token in zip(expected, found, strict=True):
            assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
            best = row.topk(3)
            assert [top.id for top in token.top] == best.indices.tolist()
            assert [top.logprob for top in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)

    async def test_of_the_prompt(self, on: Any, model: Any) -> None:
        prompt = model.tokenizer.encode(PROMPTS[0])
        request = asked(model, PROMPTS[0], logprobs=2, echo=True, max_tokens=1)
        if on.kind == "tgi":
            assert (await refused(on, request, PROMPTS[0])).details["param"] == "echo"
            return
        with torch.no_grad():
            expected = model.reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
        for limit in (0, 1):
            first = (await events(on, asked(model, PROMPTS[0], logprobs=2, echo=True, max_tokens=limit), PROMPTS[0]))[0]
            assert isinstance(first, PromptEvent)
            assert first.text == PROMPTS[0]
            assert [token.id for token in first.tokens] == prompt
            assert [token.logprob for token in first.tokens] == [
                None,
                *(pytest.approx(float(expected[i, token]), abs=1e-4) for i, token in enumerate(prompt[1:])),
            ]
            assert [len(token.top) for token in first.tokens] == [0] + [2] * (len(prompt) - 1)

    async def test_of_a_continuation(self, on: Any, model: Any) -> None:
        prompt = model.tokenizer.encode(PROMPTS[2])
        request = asked(model, PROMPTS[2], logprobs=0, score_from=4, max_tokens=0)
        if on.kind == "tgi":
            assert (await refused(on, request, PROMPTS[2])).details["param"] == "echo"
            return
        with torch.no_grad():
            expected = model.reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
        first = (await events(on, request, PROMPTS[2]))[0]
        assert isinstance(first, PromptEvent)
        assert [(token.id, token.logprob) for token in first.tokens] == [
            (token, pytest.approx(float(expected[place, token]), abs=1e-4))
            for place, token in enumerate(prompt[4:], start=3)
        ]


class TestSampling:
    async def test_a_seed_repeats(self, on: Any, model: Any) -> None:
        warm = Sampling(temperature=1.0, seed=5)
        texts = {joined(await generated(on, model, PROMPTS[0], sampling=warm)) for _ in range(2)}
        other = joined(await generated(on, model, PROMPTS[0], sampling=Sampling(temperature=1.0, seed=6)))
        assert len(texts) == 1
        assert other not in texts

    async def test_a_cut_to_one_candidate_is_greedy(self, on: Any, model: Any) -> None:
        greedy = joined(await generated(on, model, PROMPTS[0]))
        cut = Sampling(temperature=1.5, top_k=1, seed=1)
        assert joined(await generated(on, model, PROMPTS[0], sampling=cut)) == greedy

    async def test_a_repetition_penalty_is_that_of_transformers(self, on: Any, model: Any) -> None:
        prompt = model.tokenizer.encode(PROMPTS[0])
        made = model.reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=LENGTH,
            do_sample=False,
            repetition_penalty=1.5,
            pad_token_id=0,
        )
        found = await generated(on, model, PROMPTS[0], sampling=Sampling(temperature=0, repetition_penalty=1.5))
        assert joined(found) == model.tokenizer.decode(made[0, len(prompt) :].tolist())

    async def test_several_completions_are_counted_together(self, on: Any, model: Any) -> None:
        warm = Sampling(temperature=1.0, seed=5)
        request = asked(model, PROMPTS[0], n=2, sampling=warm)
        if on.kind == "tgi":
            assert (await refused(on, request, PROMPTS[0])).details["param"] == "n"
            return
        found = await events(on, request, PROMPTS[0])
        assert joined(found, 0) != joined(found, 1)
        total = sum(chunks(found, index)[-1].completion_tokens for index in (0, 1))
        assert found[-1] == UsageEvent(prompt_tokens=len(request.prompt), completion_tokens=total)


class TestSoftPrompt:
    async def test_rows_take_the_places_of_tokens(self, on: Any, model: Any) -> None:
        rows = torch.randn(3, 128, generator=torch.Generator().manual_seed(1)) * 0.2
        ids = model.tokenizer.encode(PROMPTS[0])
        prompt = [-1, -2, *ids[:2], -3, *ids[2:]]
        request = EngineRequest(
            prompt, sampling=GREEDY, max_tokens=LENGTH, logprobs=0, soft_prompt=SoftPromptRows("sp_1", rows)
        )
        if on.kind == "tgi":
            assert "soft prompts" in (await refused(on, request, None)).message
            return
        table = model.reference.get_input_embeddings().weight
        embedded = torch.stack([rows[-1 - token] if token < 0 else table[token] for token in prompt]).detach()
        found = await events(on, request, None)
        assert [token.id for token in tokens(found)] == expected_ids(model, embedded=embedded)
        assert joined(found) != joined(await generated(on, model, PROMPTS[0]))
        assert isinstance(found[-1], UsageEvent)
        assert found[-1].prompt_tokens == len(prompt)

    async def test_two_of_one_length_share_nothing_in_turn_or_at_once(self, on: Any, model: Any) -> None:
        ids = model.tokenizer.encode(PROMPTS[0])
        prompt = [*range(-1, -131, -1), *ids]  # longer than a block of any backend
        table = model.reference.get_input_embeddings().weight.detach()
        requests, expected = [], []
        for number in (1, 2):
            rows = torch.randn(130, 128, generator=torch.Generator().manual_seed(number)) * 0.2
            soft_prompt = SoftPromptRows(f"sp_{number}", rows)
            requests.append(asked(model, "", prompt=prompt, logprobs=0, soft_prompt=soft_prompt))
            expected.append(expected_ids(model, embedded=torch.cat([rows, table[ids]])))
        assert expected[0] != expected[1]
        if on.kind == "tgi":
            assert "soft prompts" in (await refused(on, requests[0], None)).message
            return
        for place in (0, 1, 0):
            assert [token.id for token in tokens(await events(on, requests[place], None))] == expected[place]
        found = await asyncio.gather(*(events(on, request, None) for request in requests * 2))
        assert [[token.id for token in tokens(one)] for one in found] == expected * 2

    @pytest.mark.parametrize("fields", [{"echo": True, "logprobs": 0}, {"sampling": Sampling(repetition_penalty=2)}])
    async def test_what_vllm_cannot_do_with_rows_is_refused(self, on: Any, model: Any, fields: dict[str, Any]) -> None:
        rows = SoftPromptRows("sp_1", torch.zeros(1, 128))
        request = EngineRequest([-1, 5], soft_prompt=rows, **{"sampling": GREEDY, "max_tokens": 1} | fields)
        if on.kind == "native":
            assert isinstance((await events(on, request, None))[-1], UsageEvent)
        else:
            assert (await refused(on, request)).code is ErrorCode.INVALID_PARAMETER


class TestRefused:
    @pytest.mark.parametrize(
        ("prompt", "code"),
        [
            ([], ErrorCode.INVALID_PARAMETER),
            ([99_999], ErrorCode.INVALID_PARAMETER),
            ([-1], ErrorCode.INVALID_PARAMETER),
            ([5] * 400, ErrorCode.PROMPT_TOO_LONG),
        ],
    )
    async def test_what_no_model_can_serve(self, on: Any, prompt: list[int], code: ErrorCode) -> None:
        error = await refused(on, EngineRequest(prompt, max_tokens=1), "")
        assert (error.code, error.details["param"]) == (code, "prompt")

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"sampling": Sampling(frequency_penalty=1)}, "sampling.frequency_penalty"),
            ({"sampling": Sampling(presence_penalty=1)}, "sampling.presence_penalty"),
            ({"sampling": Sampling(temperature=0.5), "logprobs": 1}, "logprobs"),
        ],
    )
    async def test_what_tgi_does_otherwise(self, on: Any, model: Any, fields: dict[str, Any], param: str) -> None:
        request = asked(model, PROMPTS[0], **fields)
        if on.kind == "tgi":
            assert (await refused(on, request, PROMPTS[0])).details["param"] == param
            assert (await refused(on, asked(model, PROMPTS[0]), None)).details["param"] == "prompt"
        else:
            assert isinstance((await events(on, request, PROMPTS[0]))[-1], UsageEvent)


class TestLeaving:
    async def test_ends_the_work(self, on: Any, model: Any) -> None:
        request = asked(model, PROMPTS[0], max_tokens=model.context - 20)
        async with aclosing(on.backend.generate(request, text=PROMPTS[0])) as found:
            async for event in found:
                if isinstance(event, ChunkEvent):
                    break
        left_at = time.monotonic()
        while await on.running():
            await asyncio.sleep(0.05)
            assert time.monotonic() - left_at < 10

    async def test_it_is_ready(self, on: Any) -> None:
        await on.backend.check_ready()

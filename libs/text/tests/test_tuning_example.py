"""Rows become prompts and answers: as serving makes them, cut where they must be, with examples before them."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import TuningTemplate
from hunmin_text.prompt_template import encode_template, parse_template
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.tuning_example import RowEncoder, draw_examples, example_fields, example_text, spell_template
from hypothesis import given
from hypothesis import strategies as st

REVIEW = TuningTemplate(
    prompt="<|VIRTUAL_PROMPT_0|>리뷰: {text}\n<|VIRTUAL_PROMPT_1|>감정:",
    answer="{label}",
    verbalizers={"1": " 긍정", "0": " 부정"},
)
CHAT = TuningTemplate(prompt="<|VIRTUAL_PROMPT_0|>질문: {question}\n답변:", answer=" {answer}")
ROW = {"text": "이 영화는 정말 {재미}있었습니다", "label": "1"}


def encoder(template: TuningTemplate, tokenizer: Tokenizer, *, slots=(2, 3), max_tokens=256, examples=()) -> RowEncoder:
    return RowEncoder(template, tokenizer, slots=slots, max_tokens=max_tokens, examples=examples)


def served(made: RowEncoder, row: Mapping[str, str], slots, tokenizer: Tokenizer) -> list[int]:
    """What the generation service makes of the manifest's template and a request's fields."""
    return encode_template(made.served, made.served_fields(row), slots, tokenizer)


class TestWhatIsTrainedIsWhatIsServed:
    def test_prompt_and_answer(self, morpheme: Tokenizer) -> None:
        made = encoder(REVIEW, morpheme)
        example = made.encode(ROW)
        assert made.served == REVIEW.prompt
        assert example.prompt == encode_template(REVIEW.prompt, {"text": ROW["text"]}, [2, 3], morpheme)
        assert example.answer == morpheme.encode(" 긍정")
        assert made.choices == {"1": morpheme.encode(" 긍정"), "0": morpheme.encode(" 부정")}

    def test_a_text_ends_with_the_token_that_says_so(self, morpheme: Tokenizer) -> None:
        example = encoder(CHAT, morpheme, slots=(1,)).encode({"question": "날씨?", "answer": "맑아요"})
        assert example.answer == [*morpheme.encode(" 맑아요"), morpheme.eos_id]

    def test_examples_are_text_of_the_served_template(self, morpheme: Tokenizer) -> None:
        shown = [{"text": "재미 {없다} }}", "label": "0"}, {"text": "좋다", "label": "1"}]
        made = encoder(REVIEW, morpheme, examples=shown)
        text = "리뷰: 재미 {없다} }}\n감정: 부정\n\n리뷰: 좋다\n감정: 긍정\n\n"
        prompt = made.encode(ROW).prompt
        assert prompt == served(made, ROW, [2, 3], morpheme)
        assert prompt[: prompt.index(-1)] == morpheme.encode(text)

    def test_without_slots_it_is_for_the_model_alone(self, morpheme: Tokenizer) -> None:
        example = encoder(REVIEW, morpheme, slots=()).encode(ROW)
        assert example.prompt == morpheme.encode(f"리뷰: {ROW['text']}\n감정:")

    def test_what_looks_like_a_slot_in_a_field_is_text(self, morpheme: Tokenizer) -> None:
        row = {"text": "<|VIRTUAL_PROMPT_0|>", "label": "1"}
        assert Counter(token for token in encoder(REVIEW, morpheme).encode(row).prompt if token < 0) == Counter(
            range(-5, 0)
        )
        with pytest.raises(HunminError, match="read as a slot"):
            encoder(REVIEW, morpheme, examples=[row])

    @given(parts=st.lists(st.sampled_from(["{", "}", "{{", "가 ", "{a}", "<|VIRTUAL_PROMPT_0|>", "<|"])))
    def test_a_template_is_spelt_as_it_is_read(self, parts: list[str]) -> None:
        text = "".join(parts)
        try:
            template = parse_template(text)
        except HunminError:
            return
        assert parse_template(spell_template(template)) == template


class TestCutting:
    CUT = REVIEW.model_copy(update={"truncated": "text"})

    @given(
        text=st.text(alphabet="영화는 재미😀있다abc\u1112\u1161\n", min_size=1, max_size=80), room=st.integers(24, 60)
    )
    def test_the_named_field_keeps_all_that_fits(self, starter: Tokenizer, text: str, room: int) -> None:
        made = encoder(self.CUT, starter, max_tokens=room)
        row = {"text": text, "label": "1"}
        example, kept = made.encode(row), made.served_fields(row)["text"]
        longest = max(map(len, made.choices.values()))
        assert example.prompt == served(made, row, [2, 3], starter)
        assert len(example.prompt) + longest <= room
        assert text.startswith(kept)
        if kept != text:  # no token more would have fitted
            starts = [start for start, _ in starter.encode_with_offsets(text).offsets]
            following = next((start for start in [*starts, len(text)] if start > len(kept)), len(text))
            assert kept == "" or len(kept) in starts
            longer = encode_template(made.served, {"text": text[:following]}, [2, 3], starter)
            assert len(longer) + longest > room or following == len(text)

    def test_nothing_else_is_cut(self, morpheme: Tokenizer) -> None:
        with pytest.raises(HunminError, match="Name the field that may be cut") as refused:
            encoder(REVIEW, morpheme, max_tokens=20).encode({"text": "영화 " * 40, "label": "1"})
        assert refused.value.code == ErrorCode.PROMPT_TOO_LONG
        with pytest.raises(HunminError, match="Even without 'text'"):
            encoder(self.CUT, morpheme, max_tokens=8).encode(ROW)


class TestPreview:
    def test_tokens_are_those_of_the_example(self, starter: Tokenizer) -> None:
        made = encoder(REVIEW, starter, examples=[{"text": "좋다", "label": "1"}])
        rendered, example = made.render(ROW), made.encode(ROW)
        assert [token.id for token in rendered.tokens] == example.prompt + example.answer
        assert rendered.text == f"리뷰: 좋다\n감정: 긍정\n\n리뷰: {ROW['text']}\n감정: 긍정"
        assert Counter(token.kind for token in rendered.tokens)["virtual"] == 5
        assert [token.id for token in rendered.tokens if token.kind == "answer"] == example.answer
        fields = "".join(token.text for token in rendered.tokens if token.kind == "field")
        assert "영화" in fields
        assert "감정" not in fields
        assert rendered.tokens[-1].text == starter.token_text(example.answer[-1])


class TestExamples:
    ROWS = [{"text": f"영화 {number}", "label": str(number % 3 // 2)} for number in range(60)]

    def test_labels_come_in_turn_and_the_seed_decides(self, morpheme: Tokenizer) -> None:
        draws = [draw_examples(REVIEW, self.ROWS, morpheme, count=6, budget=1000, seed=seed) for seed in (1, 1, 2)]
        assert draws[0] == draws[1] != draws[2]
        assert Counter(self.ROWS[number]["label"] for number in draws[0]) == {"0": 3, "1": 3}
        assert len({*draws[0]}) == 6

    def test_the_budget_holds(self, morpheme: Tokenizer) -> None:
        rows = [{"text": "아주 긴 영화 이야기 " * 20, "label": "1"}, *self.ROWS]
        for budget in (0, 30, 90, 200):
            drawn = draw_examples(REVIEW, rows, morpheme, count=8, budget=budget, seed=0)
            shown = "".join(example_text(REVIEW, rows[number]) for number in drawn)
            assert len(morpheme.encode(shown)) <= budget
            assert len(drawn) <= 8
        assert len(drawn) > 2


class TestWrongTemplates:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"prompt": "<|VIRTUAL_PROMPT_0|>영화"}, "The prompt has no"),
            ({"answer": "긍정", "verbalizers": None}, "The answer has no"),
            ({"answer": "{label}<|VIRTUAL_PROMPT_0|>", "verbalizers": None}, "The answer has a slot"),
            ({"answer": " {label}"}, "is one"),
            ({"verbalizers": {"1": "가", "0": "가"}}, "same text"),
            ({"truncated": "label"}, "no field 'label'"),
        ],
    )
    def test_are_refused(self, changes: dict[str, object], said: str) -> None:
        with pytest.raises(HunminError, match=said) as refused:
            example_fields(TuningTemplate(**{**REVIEW.model_dump(), **changes}))
        assert refused.value.code == ErrorCode.INVALID_PARAMETER

    def test_slots_must_match(self, morpheme: Tokenizer) -> None:
        with pytest.raises(HunminError, match="The template has the slots"):
            encoder(REVIEW, morpheme, slots=(2,))

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"text": "가"}, "has no verbalizer"),
            ({"text": "가", "label": "2"}, "'2' has no verbalizer"),
            ({"label": "1"}, "no field 'text'"),
        ],
    )
    def test_so_are_wrong_rows(self, morpheme: Tokenizer, row: dict[str, str], said: str) -> None:
        with pytest.raises(HunminError, match=said):
            encoder(REVIEW, morpheme).encode(row)

    def test_fields_are_named(self) -> None:
        assert example_fields(CHAT) == ("question", "answer")

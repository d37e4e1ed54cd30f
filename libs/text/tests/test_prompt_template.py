"""Templates become ids: fields and text in one piece, rows of a soft prompt in their slots, mistakes named."""

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_text.prompt_template import encode_template, parse_template, resolve_slots, template_fields, template_length
from hunmin_text.tokenizer import Tokenizer

REVIEW = "<|VIRTUAL_PROMPT_0|>리뷰: {review}\n<|VIRTUAL_PROMPT_1|>감정:"


def test_rows_stand_in_their_slots_and_text_between_them_is_one_piece(morpheme: Tokenizer) -> None:
    ids = encode_template(REVIEW, {"review": "재미있었습니다"}, [2, 3], morpheme)
    assert ids == [-1, -2, *morpheme.encode("리뷰: 재미있었습니다\n"), -3, -4, -5, *morpheme.encode("감정:")]


def test_slots_may_stand_in_any_order(morpheme: Tokenizer) -> None:
    template = "<|VIRTUAL_PROMPT_1|>가<|VIRTUAL_PROMPT_0|>"
    assert encode_template(template, {}, [2, 1], morpheme) == [-3, *morpheme.encode("가"), -1, -2]


def test_without_a_template_all_rows_come_first(morpheme: Tokenizer) -> None:
    assert encode_template(None, {"prompt": "이 영화는"}, [1, 2], morpheme) == [
        -1,
        -2,
        -3,
        *morpheme.encode("이 영화는"),
    ]
    assert encode_template(None, {"prompt": [5, 6]}, [1], morpheme) == [-1, 5, 6]


def test_a_field_of_ids_splits_the_text(morpheme: Tokenizer) -> None:
    ids = encode_template("<|VIRTUAL_PROMPT_0|>영화{ids}감정{word}", {"ids": [7, 8], "word": "은"}, [1], morpheme)
    assert ids == [-1, *morpheme.encode("영화"), 7, 8, *morpheme.encode("감정은")]


def test_what_looks_like_a_slot_a_field_or_a_special_token_in_a_value_is_text(morpheme: Tokenizer) -> None:
    typed = "<|VIRTUAL_PROMPT_0|>{other}{{<|endoftext|>"
    ids = encode_template("<|VIRTUAL_PROMPT_0|>{text}", {"text": typed}, [1], morpheme)
    assert ids == [-1, *morpheme.encode(typed)]
    assert morpheme.eos_id not in ids


def test_what_begins_every_prompt_stands_before_a_template_and_after_bare_rows(morpheme: Tokenizer) -> None:
    morpheme.prefix_ids = [9]
    try:
        text = morpheme.encode("가")
        assert encode_template("<|VIRTUAL_PROMPT_0|>{a}", {"a": "가"}, [1], morpheme) == [9, -1, *text]
        assert encode_template(None, {"prompt": "가"}, [1], morpheme) == [-1, 9, *text]
    finally:
        morpheme.prefix_ids = []


def test_doubled_braces_are_braces() -> None:
    assert parse_template("{{}} {{{이름}}}").parts[0] == "{} {"
    assert template_fields("{{no}} {b} {이름} {b}") == ("b", "이름")
    assert template_fields(None) == ("prompt",)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a { b", "character 2"),
        ("a } b", "brace"),
        ("{}", "field"),
        ("{a b}", "'{a b}'"),
        ("{a:>10}", "field"),
        ("{0}", "field"),
        ("<|VIRTUAL_PROMPT_x|>", "not a slot"),
        ("<|VIRTUAL_PROMPT_|>", "not a slot"),
        ("<|VIRTUAL_PROMPT_01|>", "not a slot"),
        ("<|VIRTUAL_PROMPT_-1|>", "not a slot"),
        ("<|VIRTUAL_PROMPT_{a}|>", "not a slot"),
    ],
)
def test_a_template_that_is_none_is_refused(template: str, said: str) -> None:
    with pytest.raises(HunminError, match=said) as caught:
        parse_template(template)
    assert (caught.value.code, caught.value.details) == (ErrorCode.INVALID_PARAMETER, {"param": "template"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "lacks 'review'.*has 'review'"),
        ({"review": "가", "other": "나"}, "unknown 'other'"),
        ({"text": "가"}, "lacks 'review' and has the unknown 'text'"),
    ],
)
def test_missing_and_unknown_fields_are_named(morpheme: Tokenizer, fields: dict[str, str], said: str) -> None:
    with pytest.raises(HunminError, match=said) as caught:
        encode_template(REVIEW, fields, [1, 1], morpheme)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


class TestSlots:
    @pytest.mark.parametrize(
        ("template", "slots", "expected"),
        [
            (None, None, [5]),
            (None, [2, 3], [2, 3]),
            ("<|VIRTUAL_PROMPT_0|>", None, [5]),
            ("<|VIRTUAL_PROMPT_1|> <|VIRTUAL_PROMPT_0|>", [4, 1], [4, 1]),
        ],
    )
    def test_take_all_rows(self, template: str | None, slots: list[int] | None, expected: list[int]) -> None:
        assert resolve_slots(template, slots, 5) == expected

    @pytest.mark.parametrize("template", [None, "리뷰: {review}"])
    def test_are_none_without_a_soft_prompt(self, template: str | None) -> None:
        assert resolve_slots(template, None, 0) == []
        for wrong in ((template, [1]), ("<|VIRTUAL_PROMPT_0|>", None)):
            with pytest.raises(HunminError, match="no soft prompt"):
                resolve_slots(*wrong, 0)

    @pytest.mark.parametrize(
        ("template", "slots", "param"),
        [
            (None, [2, 2], "slots"),
            (None, [], "slots"),
            (None, [6, -1], "slots"),
            ("no slot", None, "template"),
            ("no slot", [5], "template"),
            ("<|VIRTUAL_PROMPT_1|>", None, "template"),
            ("<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_0|>", [3, 2], "template"),
            ("<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_1|>", None, "slots"),
            ("<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_1|>", [5], "template"),
            ("<|VIRTUAL_PROMPT_0|>", [3, 2], "template"),
            ("<|VIRTUAL_PROMPT_0|>", [4], "slots"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, template: str | None, slots: list[int] | None, param: str) -> None:
        with pytest.raises(HunminError) as caught:
            resolve_slots(template, slots, 5)
        assert (caught.value.code, caught.value.details) == (ErrorCode.INVALID_PARAMETER, {"param": param})


@pytest.mark.parametrize(
    ("template", "length"),
    [(None, 0), ("{a}", 5), ("{a}, {b}{a}<|VIRTUAL_PROMPT_0|>{{", 16), ("글", 1)],
)
def test_a_value_counts_at_each_of_its_places(template, length) -> None:
    assert template_length(template, {"a": 5, "b": 3}) == length

"""What a report says of rows in a template, and how rows are divided."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hunmin_contracts.datasets import DatasetInfo, DatasetReport, Finding, ReportQuestion, Shares
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import DatasetId
from hunmin_contracts.tuning import TuningTemplate
from hunmin_text.artefact import load
from hunmin_text.tokenizer import Tokenizer
from hunmin_tuning.datasets.report import Use, build_report
from hunmin_tuning.datasets.row import Row
from hunmin_tuning.datasets.splits import assign
from hypothesis import given
from hypothesis import strategies as st

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
TEMPLATE = TuningTemplate(
    prompt="{text}<|VIRTUAL_PROMPT_0|> 평가:", answer="{label}", verbalizers={"1": " 긍정", "0": " 부정"}
)
PINNED = [2, 4, 6, 13, 19, 26]
TEXTS = [f"{number}번째로 본 영화" for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load(STARTER, name="starter")


def judged(
    tokenizer: Tokenizer,
    rows: Sequence[tuple[str, str]],
    *,
    context_length: int = 256,
    names: Sequence[str] = ("text", "label"),
    findings: Sequence[Finding] = (),
    **question: object,
) -> DatasetReport:
    info = DatasetInfo(
        id=DatasetId("ds_1"),
        name="nsmc",
        version=1,
        format="csv",
        encoding="utf-8",
        columns=list(names),
        rows=len(rows),
        digest="0" * 64,
        size_bytes=1,
        findings=list(findings),
        created_at=datetime.now(UTC),
    )
    asked = ReportQuestion.model_validate({"template": TEMPLATE} | question)
    lines = [Row(line, dict(zip(names, cells, strict=True))) for line, cells in enumerate(rows, 2)]
    return build_report(info, lambda: lines, Use(asked, tokenizer, context_length))


def found(report: DatasetReport) -> list[tuple[str, str, list[int]]]:
    return [(each.kind, each.severity, each.lines) for each in report.findings]


def good(count: int = 40) -> list[tuple[str, str]]:
    return [(text, str(number % 2)) for number, text in enumerate(TEXTS[:count])]


def test_good_rows_pass_and_are_counted(tokenizer: Tokenizer) -> None:
    report = judged(tokenizer, good())
    assert (report.passes, report.findings, report.rows) == (True, [], 40)
    assert report.labels == {"0": 20, "1": 20}
    assert report.splits == {"train": 32, "validation": 4, "test": 4}
    assert 20 < report.tokens.mean <= report.tokens.longest < 60
    assert report.tokens.total == round(report.tokens.mean * 40)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("", "1"), (" \t", "0")], ("empty_value", "error", [42, 43])),
        ([(TEXTS[0], "0")], ("duplicate_row", "warning", [42])),
        ([("영화", "2"), ("연극", "긍정")], ("unknown_label", "error", [42, 43])),
        ([("제 번호는 000101-1000002예요", "1")], ("personal_data", "error", [42])),
        ([("카드 4111-1111-1111-1111로", "1")], ("personal_data", "error", [42])),
        ([("010-1234-5678로 전화해", "1")], ("personal_data", "warning", [42])),
        ([("영화 " * 300, "1")], ("too_long", "error", [42])),
    ],
)
def test_each_fault_has_its_lines(
    tokenizer: Tokenizer, rows: list[tuple[str, str]], expected: tuple[str, str, list[int]]
) -> None:
    report = judged(tokenizer, good() + rows)
    assert found(report) == [expected]
    assert report.passes == (expected[1] == "warning")


def test_a_field_that_may_be_cut_makes_a_long_row_a_warning(tokenizer: Tokenizer) -> None:
    template = TEMPLATE.model_copy(update={"truncated": "text"})
    report = judged(tokenizer, [*good(), ("영화 " * 300, "1")], template=template)
    assert (report.passes, found(report)) == (True, [("shortened", "warning", [42])])
    assert report.tokens.longest == 256


def test_rows_must_be_many_enough_and_differ_in_label(tokenizer: Tokenizer) -> None:
    assert ("too_few_rows", "error", [2]) in found(judged(tokenizer, good(1)))
    assert found(judged(tokenizer, good(9))) == [("too_few_rows", "error", [10])]
    many = TEMPLATE.model_copy(update={"examples": 32})
    assert found(judged(tokenizer, good(), template=many)) == [("too_few_rows", "error", [41])]
    assert found(judged(tokenizer, good(), shares={"train": 1, "validation": 0, "test": 1}))[0][0] == "too_few_rows"
    assert found(judged(tokenizer, [(text, "1") for text in TEXTS])) == [("one_label", "error", [2])]
    uneven = [(text, "1") for text in TEXTS[1:]] + [(TEXTS[0], "0")]
    report = judged(tokenizer, uneven)
    assert (found(report), report.labels) == ([("label_balance", "warning", [])], {"0": 1, "1": 39})


def test_columns_are_mapped_to_fields(tokenizer: Tokenizer) -> None:
    names = ("document", "label")
    report = judged(tokenizer, [*good(), ("", "1")], names=names, columns={"text": "document"})
    assert [(each.kind, each.column, each.lines) for each in report.findings] == [("empty_value", "document", [42])]
    for columns in ({}, {"text": "review"}, {"text": "document", "title": "label"}):
        with pytest.raises(HunminError) as caught:
            judged(tokenizer, good(), names=names, columns=columns)
        assert (caught.value.code, caught.value.details["param"]) == (ErrorCode.INVALID_PARAMETER, "columns")


def test_findings_of_the_file_count_too(tokenizer: Tokenizer) -> None:
    ragged = Finding(kind="ragged_row", severity="error", message="…", count=1, lines=[7])
    assert not judged(tokenizer, good(), findings=[ragged]).passes


@pytest.mark.parametrize(
    "template",
    [
        {"prompt": "아무 필드도 없다<|VIRTUAL_PROMPT_0|>"},
        {"prompt": "{text}"},
        {"answer": "{label}!"},
        {"truncated": "title"},
        {"prompt": "{title}<|VIRTUAL_PROMPT_0|>"},
    ],
)
def test_a_template_that_does_not_fit_is_refused(tokenizer: Tokenizer, template: dict[str, str]) -> None:
    with pytest.raises(HunminError) as caught:
        judged(tokenizer, good(), template=TEMPLATE.model_copy(update=template))
    assert caught.value.code == ErrorCode.INVALID_PARAMETER


class TestSplits:
    @given(st.lists(st.sampled_from("abc"), max_size=200), st.integers(0, 2**63 - 1))
    def test_every_split_has_its_share_in_all_and_in_each_label(self, labels: list[str], seed: int) -> None:
        splits = assign(len(labels), Shares(), seed, labels=labels)
        for share, name in ((0.8, "train"), (0.1, "validation"), (0.1, "test")):
            assert abs(splits.count(name) - share * len(labels)) <= 1
            for label in set(labels):
                rows = [split for split, of in zip(splits, labels, strict=True) if of == label]
                assert abs(rows.count(name) - share * len(rows)) <= 2

    def test_a_seed_means_one_division_for_ever(self) -> None:
        assert assign(2000, Shares(), 7) == assign(2000, Shares(), 7) != assign(2000, Shares(), 8)
        assert [number for number, split in enumerate(assign(30, Shares(), 7)) if split != "train"] == PINNED
        positions = [number for number, split in enumerate(assign(2000, Shares(), 7)) if split == "test"]
        assert 800 < sum(positions) / len(positions) < 1200

    def test_ten_rows_are_enough_for_every_split(self) -> None:
        assert Counter(assign(10, Shares(), 0)) == {"train": 8, "validation": 1, "test": 1}


def test_rows_to_train_with_are_counted_and_must_have_two_labels(tokenizer: Tokenizer) -> None:
    by_label = [(text, str(number // 20)) for number, text in enumerate(TEXTS)]  # all of one label first
    report = judged(tokenizer, by_label, train_rows=10)
    assert (report.splits["train"], [each[0] for each in found(report)]) == (10, ["one_label"])
    assert judged(tokenizer, by_label, train_rows=20).passes
    assert found(judged(tokenizer, by_label, train_rows=33)) == [("too_few_rows", "error", [41])]

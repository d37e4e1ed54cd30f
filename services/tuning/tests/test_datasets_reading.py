"""Files that can be read come out as rows with their lines; files that cannot say where."""

import csv
import io
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_tuning.datasets.bounds import Bounds
from hunmin_tuning.datasets.reading import Reading
from hunmin_tuning.datasets.row import Row
from hunmin_tuning.datasets.source import Source, inspect
from hypothesis import given
from hypothesis import strategies as st

TABLE = "text,label\n좋은 영화,긍정\n나쁜 영화,부정\n"
ROWS = [Row(2, {"text": "좋은 영화", "label": "긍정"}), Row(3, {"text": "나쁜 영화", "label": "부정"})]

BOUNDS = Bounds()
_HANGUL_TEXT = st.text(
    st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3) | st.sampled_from("가 각관ㄱ一7a🙂"), max_size=60
)


def read(content: bytes, filename: str | None = None, bounds: Bounds = BOUNDS) -> tuple[Source, Reading, list[Row]]:
    file = io.BytesIO(content)
    source = inspect(file, bounds, filename=filename)
    reading = Reading(file, source, bounds)
    rows = list(reading.rows())
    return source, reading, rows


def refusal(content: bytes, filename: str | None = None, bounds: Bounds = BOUNDS) -> HunminError:
    with pytest.raises(HunminError) as caught:
        read(content, filename, bounds)
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    return caught.value


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-bom"),
        ("cp949", "cp949"),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_encoding_is_told_and_read(codec: str, name: str, line_end: str) -> None:
    source, reading, rows = read(TABLE.replace("\n", line_end).encode(codec))
    assert (source.format, source.encoding) == ("csv", name)
    assert (reading.columns, rows) == (["text", "label"], ROWS)
    assert reading.findings.all() == []


@pytest.mark.parametrize(
    ("content", "filename", "format"),
    [
        (TABLE, "reviews.CSV", "csv"),
        (TABLE.replace(",", "\t"), "reviews.tsv", "tsv"),
        (TABLE.replace(",", "\t"), None, "tsv"),
        ('{"text": "좋은 영화", "label": "긍정"}\n{"text": "나쁜 영화", "label": "부정"}', None, "jsonl"),
    ],
)
def test_the_format_is_told_by_the_name_or_the_content(content: str, filename: str | None, format: str) -> None:
    source, _, rows = read(content.encode(), filename)
    assert source.format == format
    assert [row.fields for row in rows] == [row.fields for row in ROWS]


def test_quoted_line_ends_count_as_lines() -> None:
    _, _, rows = read('text,label\n"첫째\n둘째, ""셋째""",긍정\n\n다음,부정\n'.encode())
    assert rows == [
        Row(2, {"text": '첫째\n둘째, "셋째"', "label": "긍정"}),
        Row(5, {"text": "다음", "label": "부정"}),
    ]


def test_a_tab_separated_file_has_no_quotes() -> None:
    _, _, rows = read('id\ttext\n1\t"명대사" 하나\n2\t"열린\n'.encode())
    assert [row.fields["text"] for row in rows] == ['"명대사" 하나', '"열린']


def test_json_values_are_text_as_they_are_written() -> None:
    line = '{"text": "가\\n나", "score": 1.50, "id": 12345678901234567890, "good": true, "note": null}\n'
    _, reading, rows = read((line + '{"more": "x"}\n').encode())
    assert rows[0].fields == {
        "text": "가\n나",
        "score": "1.50",
        "id": "12345678901234567890",
        "good": "true",
        "note": "",
    }
    assert reading.columns == ["text", "score", "id", "good", "note", "more"]


def test_parquet_is_read_by_row_number() -> None:
    content = parquet({"text": ["가", None, "다"] * 50, "label": [1, 2, 3] * 50, "ok": [True, False, None] * 50})
    source, reading, rows = read(content)
    assert source.format == "parquet"
    assert reading.columns == ["text", "label", "ok"]
    assert rows[1] == Row(2, {"text": "", "label": "2", "ok": "false"})
    assert (len(rows), rows[-1].line) == (150, 150)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "cell", ["가", "각", "\uad00\ub000\uc700", "뷁쀍", "가나다라마바사" * 9, "ㄱㅏ", "一", "naïve", "\u200a", "🙂"]
)
def test_utf_16_without_a_mark_is_told_however_few_its_letters_of_ascii(codec: str, cell: str) -> None:
    source, _, rows = read((f"{cell},1\n" * 50).replace(f"{cell},1", "글,표", 1).encode(codec))
    assert (source.encoding, len(rows), rows[0].fields) == (codec, 49, {"글": cell, "표": "1"})


@given(
    st.lists(st.tuples(_HANGUL_TEXT, _HANGUL_TEXT), max_size=8),
    st.sampled_from(["utf-16-le", "utf-16-be"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_utf_16_without_a_mark_is_told_of_any_hangul(cells: list[tuple[str, str]], codec: str, line_end: str) -> None:
    text = "".join(f'"{one}","{other}"{line_end}' for one, other in [("글", "표"), *cells])
    source, _, rows = read(text.encode(codec), "a.csv")
    assert source.encoding == codec
    assert [tuple(row.fields.values()) for row in rows] == cells


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=2, max_size=2), max_size=8
    )
)
def test_what_csv_writes_is_read(cells: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([["text", "label"], *cells])
    _, _, rows = read(text.getvalue().encode(), "a.csv")
    # csv and readers of csv leave alone what is within quotes, and a row of nothing at all is one.
    assert [list(row.fields.values()) for row in rows] == cells


def test_a_byte_that_is_no_text_has_its_line_and_column() -> None:
    error = refusal("text,label\n좋은 영화,긍정\n나쁜 ".encode() + b"\xff\xfe,x\n")
    assert (error.details["line"], error.details["column"]) == (3, 4)
    assert "UTF-8" in error.message
    error = refusal("text,label\n좋은 영화,긍정\n나쁜 ".encode("cp949") + b"\xff\xff,x\n")
    assert (error.details["line"], error.details["column"]) == (3, 4)
    assert "CP949" in error.message
    far = b"text\n" + "좋은 영화\r\n".encode() * 50_000 + b"ab\xc3\n"
    error = refusal(far)
    assert (error.details["line"], error.details["column"]) == (50_002, 3)
    error = refusal("text,label\n가나".encode("utf-16-le") + b"\x00\xd8\n\x00")
    assert error.details["line"] == 2


@pytest.mark.parametrize(
    ("content", "line", "column", "words"),
    [
        ('text,label\n가,나\n"열린 따옴표,다\n라,마\n', 3, 1, "not end|close"),
        ('text,label\n가,"나"다\n', 2, 6, "text follows"),
        ('text,label\n"가\n나" 다,라\n', 3, 3, "text follows"),
        ("text,label\n가,나\n다\0,라\n", 3, 2, "U\\+0000"),
        ("text,text\n가,나\n", 1, None, "two columns"),
        ("text,\n가,나\n", 1, None, "no name"),
        ("9976970,아 더빙,0\n3819312,흠,1\n", 1, None, "number"),
        ("", 1, None, "empty"),
        ("\ufeff \n\n", 1, None, "empty"),
        ('[{"text": "가"}]', 1, 1, "list"),
        (",".join(f"c{number}" for number in range(300)) + "\n", 1, None, "300 columns"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(content: str, line: int, column: int | None, words: str) -> None:
    error = refusal(content.encode())
    assert (error.details["line"], error.details.get("column")) == (line, column)
    assert any(word in error.message for word in words.replace("\\", "").split("|"))


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04rest of a workbook", b"\x1f\x8b\x08rest", b"\xd0\xcf\x11\xe0\xa1\xb1", b"%PDF-1.7\n", b"BZh91AY"],
)
def test_archives_are_refused_unopened(content: bytes) -> None:
    error = refusal(content, "reviews.csv")
    assert error.details["line"] == 1
    assert "Save" in error.message or "ecompress" in error.message or "Send" in error.message


def test_a_name_that_lies_is_refused() -> None:
    assert "Parquet" in refusal(b"text\nabc\n", "a.parquet").message
    assert "Parquet" in refusal(parquet({"text": ["가"]}), "a.csv").message


def test_a_line_without_end_is_refused_early() -> None:
    class Endless(io.RawIOBase):
        """A gigabyte on one line, of which none is kept."""

        given = 0

        def readable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.given = offset
            return offset

        def read(self, size: int = -1) -> bytes:
            piece = b"text\n"[self.given : self.given + size] or b"a" * max(0, min(size, 2**30 - self.given))
            self.given += len(piece)
            return piece

    with pytest.raises(HunminError, match="longer than") as caught:
        inspect(Endless(), Bounds())  # type: ignore[arg-type]
    assert caught.value.details["line"] == 2


def test_faulty_rows_are_findings_and_the_others_are_read() -> None:
    content = 'text,label\n가,나\n다\n라,마,바\n"a\nb",c,d\n사,아\n'
    _, reading, rows = read(content.encode())
    assert [row.line for row in rows] == [2, 7]
    (finding,) = reading.findings.all()
    assert (finding.kind, finding.severity, finding.lines, finding.count) == ("ragged_row", "error", [3, 4, 5], 3)


@pytest.mark.parametrize(
    "line",
    [
        "{'text': '가'}",
        '{"text": "가"',
        '["가"]',
        '"가"',
        '{"text": NaN}',
        '{"text": ["가"]}',
        '{"text": {"a": 1}}',
        '{"text": "가", "text": "나"}',
        '{"text": "\\ud800"}',
        '{"text": "\\u0000"}',
        "{}",
        '{"": "가"}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_a_line_that_is_no_object_is_a_finding(line: str) -> None:
    _, reading, rows = read(f'{{"text": "처음"}}\n{line}\n{{"text": "끝"}}\n'.encode(), "a.jsonl")
    assert [row.line for row in rows] == [1, 3]
    (finding,) = reading.findings.all()
    assert (finding.kind, finding.severity, finding.lines) == ("malformed_row", "error", [2])


def test_findings_keep_the_first_lines_and_count_all() -> None:
    _, reading, _ = read(b"text,label\n" + b"a\n" * 500 + b"a,b\n")
    (finding,) = reading.findings.all()
    assert (finding.count, finding.lines) == (500, list(range(2, 22)))
    error = refusal(b"text,label\n" + b"a\n" * 500, bounds=Bounds(faults=100))
    assert error.details["line"] == 102


@pytest.mark.parametrize(
    ("cell", "severity"),
    [
        ("=cmd|'/c calc'!A0", "error"),
        ("=2+5+cmd|' /C calc'!A0", "error"),
        ('+HYPERLINK("http://example.com","가")', "error"),
        ("=WEBSERVICE(A1)", "error"),
        ("=SUM(A1:A3)", "warning"),
        ("= B2", "warning"),
        ("-_- 지루하다", None),
        ("=ㅅ= 귀엽다", None),
        ("@감독님 좋아요!", None),
        ("+1점", None),
    ],
)
def test_formulas_are_found_and_never_more_than_text(cell: str, severity: str | None) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["text", "label"], [cell, "긍정"]])
    _, reading, rows = read(text.getvalue().encode())
    assert rows[0].fields["text"] == cell
    assert [(each.kind, each.severity, each.lines) for each in reading.findings.all()] == (
        [("formula", severity, [2])] if severity else []
    )


def test_names_of_columns_among_the_rows_are_a_warning() -> None:
    _, reading, _ = read(f"{TABLE}{TABLE}".encode())
    assert [(each.kind, each.severity, each.lines) for each in reading.findings.all()] == [
        ("repeated_header", "warning", [4])
    ] * 2


def test_a_file_of_names_alone_has_no_rows() -> None:
    _, reading, rows = read(b"text,label\n")
    assert rows == []
    assert [(each.kind, each.severity) for each in reading.findings.all()] == [("no_rows", "error")]


@pytest.mark.parametrize(
    "cell", ["a" * 131_073, "a" * 1_000_000, '"' + "a\n" * 80_000 + '"'], ids=["131", "1000", "lines"]
)
def test_a_cell_too_long_for_csv_is_a_finding_too(cell: str) -> None:
    _, reading, rows = read(f"text\n{cell}\nb\n".encode(), "a.csv")
    assert [row.fields["text"] for row in rows] == ["b"]
    (finding,) = reading.findings.all()
    assert (finding.kind, finding.lines, "100,000 characters" in finding.message) == ("malformed_row", [2], True)


def test_a_cell_and_the_rows_are_bounded() -> None:
    _, reading, rows = read(b"text\n" + b"a" * 100_001 + b"\nb\n", "a.csv")
    assert ([row.line for row in rows], reading.findings.all()[0].lines) == ([3], [2])
    assert refusal(b"text\n" + b"a\n" * 9, bounds=Bounds(rows=5)).details["line"] == 7


class TestParquet:
    def test_a_bomb_is_refused_by_its_metadata(self) -> None:
        content = parquet({"text": ["0" * 2**20 + str(number) for number in range(64)]}, use_dictionary=False)
        assert len(content) < 2**23
        error = refusal(content, bounds=Bounds(row_group_bytes=2**24))
        assert "decompresses" in error.message
        assert error.details["line"] == 1

    def test_a_text_repeated_a_million_times_is_held_once(self) -> None:
        text = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["가" * 50_000])
        file = io.BytesIO(parquet({"text": text}))
        reading = Reading(file, inspect(file, Bounds()), Bounds())
        held = pa.total_allocated_bytes()
        rows = reading.rows()
        for _ in range(500):
            next(rows)
        assert pa.total_allocated_bytes() - held < 2**25
        rows.close()  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "columns",
        [{"text": [["가"]]}, {"text": [b"\xff"]}, {"text": [{"a": 1}]}],
        ids=["list", "binary", "struct"],
    )
    def test_columns_are_plain(self, columns: dict[str, Any]) -> None:
        assert "'text' holds" in refusal(parquet(columns)).message

    def test_what_is_damaged_is_refused(self) -> None:
        content = parquet({"text": ["가나다"] * 1000})
        for damaged in (content[:40], content[:-20] + b"x" * 20, b"PAR1" + b"\0" * 100 + b"PAR1"):
            assert "Parquet" in refusal(damaged).message

    def test_text_that_is_not_utf_8_has_its_row(self) -> None:
        bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers())
        assert refusal(parquet({"text": bad})).details["line"] in (1, 2)


def _csv() -> bytes:
    rows = (
        f"{number},{'정말 재미있는 영화다, 다시 보고 싶다 ' * 10},긍정\r\n".replace(", ", " ") for number in range(2000)
    )
    return "".join(rows).encode()


def _jsonl() -> bytes:
    row = json.dumps({"text": "정말 재미있는 영화다 " * 20, "label": "긍정"}, ensure_ascii=False).encode() + b"\n"
    return row * 2000


@pytest.mark.parametrize(("head", "block"), [(b"id,text,label\r\n", _csv()), (b"", _jsonl())], ids=["csv", "jsonl"])
def test_a_large_file_takes_little_memory(head: bytes, block: bytes, tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(head)
        for _ in range(100 * 2**20 // len(block) + 1):
            file.write(block)
        before = _resident()
        reading = Reading(file, inspect(file, BOUNDS), BOUNDS)
        assert sum(1 for _ in reading.rows()) == reading.count > 100_000
        assert _resident() - before < 24 * 2**20
        tracemalloc.start(1)
        try:
            rows = Reading(file, inspect(file, BOUNDS), BOUNDS).rows()
            for _ in range(10_000):  # tracing is slow: the rest is like these
                next(rows)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

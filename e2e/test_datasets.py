"""Datasets through the studio: a good file passes, and twenty bad ones each say where they go wrong."""

import gzip
import io
import json
import secrets
import zipfile
from dataclasses import dataclass

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

PATH = "/studio/v1/datasets"
TEMPLATE = {
    "prompt": "{text}<|VIRTUAL_PROMPT_0|> 평가:",
    "answer": "{label}",
    "verbalizers": {"1": " 긍정", "0": " 부정"},
}
GOOD = [(f"{number}번째로 본 영화", str(number % 2)) for number in range(60)]


def table(rows: list[tuple[str, ...]], separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in [("text", "label"), *rows]) + "\n"


def parquet(columns: dict, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def workbook() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 2**24)  # what a zip bomb is made of
    return sink.getvalue()


@dataclass(frozen=True)
class Bad:
    """A file, and what is to be said of it: a refusal at a line, or an error in the report at some lines."""

    name: str
    content: bytes
    line: int | None = None  # of a refusal; None: of a report
    kind: str | None = None  # of the finding
    lines: tuple[int, ...] = ()
    filename: str = "reviews.csv"


LONG_LINE = b"text,label\n" + b"a" * (3 * 2**20)
BAD = [
    Bad("not UTF-8", table(GOOD).encode() + b"\xff\xfe,1\n", line=62),
    Bad("half a letter of CP949", table(GOOD).encode("cp949") + b"\xb0", line=62),
    Bad("U+0000", table(GOOD).encode() + b"a\0b,1\n", line=62),
    Bad("a quote that stays open", table([*GOOD, ('"열린', "1")]).encode(), line=62),
    Bad("text behind a quote", table([('"닫힌"말', "1"), *GOOD]).encode(), line=2),
    Bad("a line without end", LONG_LINE, line=2),
    Bad("nothing", b"", line=1),
    Bad("no names of columns", table(GOOD).partition("\n")[2].replace("번째로", "").encode(), line=1),
    Bad("a name twice", table(GOOD).replace("text,label", "text,text").encode(), line=1),
    Bad("one JSON list", json.dumps([{"text": "가", "label": "1"}]).encode(), line=1, filename="reviews.jsonl"),
    Bad(
        "a Parquet bomb",
        parquet({"text": ["0" * 2**24] * 40, "label": ["1"] * 40}, use_dictionary=False, compression="zstd"),
        line=1,
        filename="reviews.parquet",
    ),
    Bad(
        "cells that are missing",
        table([*GOOD, ("없다",), ("많다", "1", "2")]).encode(),
        kind="ragged_row",
        lines=(62, 63),
    ),
    Bad(
        "lines that are no JSON",
        b"\n".join(json.dumps({"text": text, "label": label}).encode() for text, label in GOOD) + b"\n{'text': 1}\n[",
        kind="malformed_row",
        lines=(61, 62),
        filename="reviews.jsonl",
    ),
    Bad("names alone", b"text,label\n", kind="no_rows", lines=(1,)),
    Bad("one row", table(GOOD[:1]).encode(), kind="too_few_rows", lines=(2,)),
    Bad("one label", table([(text, "1") for text, _ in GOOD]).encode(), kind="one_label", lines=(2,)),
    Bad("a label that nobody knows", table([*GOOD, ("좋다", "긍정")]).encode(), kind="unknown_label", lines=(62,)),
    Bad("an empty text", table([("", "1"), *GOOD]).encode(), kind="empty_value", lines=(2,)),
    Bad("a formula", table([*GOOD, ("=cmd|' /C calc'!A0", "1")]).encode(), kind="formula", lines=(62,)),
    Bad(
        "a text too long, over lines",
        table([*GOOD, (f'"{"긴 글 " * 200}\n"', "1"), ('"a\n\nb"', "")]).encode(),
        kind="too_long",
        lines=(62,),
    ),
    Bad(
        "personal data",
        table([*GOOD, ("제 번호는 000101-1000002예요", "1")]).encode(),
        kind="personal_data",
        lines=(62,),
    ),
]
ARCHIVES = [
    Bad("a workbook that is a zip bomb", workbook(), filename="reviews.xlsx"),
    Bad("a zip that calls itself CSV", workbook()),
    Bad("gzip", gzip.compress(table(GOOD).encode()), filename="reviews.csv.gz"),
]


def upload(http: httpx.Client, content: bytes, filename: str = "reviews.csv") -> httpx.Response:
    name = f"e2e-{secrets.token_hex(6)}"
    return http.post(PATH, data={"name": name}, files={"file": (filename, content)})


def test_a_good_file_is_kept_judged_read_and_deleted(http, studio):
    answer = upload(http, table(GOOD).encode("utf-16"))
    assert answer.status_code == 201, answer.text
    info = answer.json()
    assert (info["version"], info["rows"], info["encoding"], info["findings"]) == (1, 60, "utf-16-le", [])
    path = f"{PATH}/{info['name']}"
    report = http.post(f"{path}@1/report", json={"template": TEMPLATE, "model": studio.model}).json()
    assert (report["passes"], report["labels"], report["findings"]) == (True, {"0": 30, "1": 30}, [])
    assert report["splits"] == {"train": 48, "validation": 6, "test": 6}
    (row,) = http.get(f"{path}/rows", params={"offset": 5, "limit": 1}).json()["rows"]
    assert row == {"line": 7, "fields": {"text": "5번째로 본 영화", "label": "1"}}
    listed = http.get(PATH, params={"name": info["name"]}).json()
    assert listed == {"data": [info], "next_cursor": None}
    again = http.post(PATH, data={"name": info["name"]}, files={"file": ("x.csv", table(GOOD).encode("utf-16"))})
    assert again.json() == info
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_twenty_bad_files_each_say_where(http, studio):
    assert len(BAD) >= 20
    for bad in BAD:
        answer = upload(http, bad.content, bad.filename)
        if bad.line is not None:
            problem = answer.json()
            assert answer.status_code == 400, bad.name
            assert (problem["code"], problem["details"].get("line")) == ("invalid_request", bad.line), (bad, problem)
            continue
        assert answer.status_code == 201, (bad.name, answer.text)
        path = f"{PATH}/{answer.json()['name']}"
        asked = http.post(f"{path}/report", json={"template": TEMPLATE, "model": studio.model})
        report = asked.json()
        assert (asked.status_code, report.get("passes")) == (200, False), (bad.name, asked.text)
        errors = {each["kind"]: each for each in report["findings"] if each["severity"] == "error"}
        assert bad.kind in errors, (bad.name, report["findings"])
        assert tuple(errors[bad.kind]["lines"]) == bad.lines, bad.name
        assert errors[bad.kind]["message"].endswith("."), bad.name
        assert http.delete(path).status_code == 204


def test_archives_are_refused_unopened(http):
    for bad in ARCHIVES:
        answer = upload(http, bad.content, bad.filename)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), bad.name
        assert answer.json()["details"]["line"] == 1, bad.name
    assert upload(http, b"text\nabc\n", "a.parquet").status_code == 400

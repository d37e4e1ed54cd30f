"""Twenty bad datasets and more: each is refused or reported on with its line, and no job starts from any."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.tuning_jobs import CREATE, LIST, CreateJobRequest, ListJobsRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ME = AccountId("acct_1")
TEMPLATE = {
    "prompt": "{text}<|VIRTUAL_PROMPT_0|> 평가:",
    "answer": "{label}",
    "verbalizers": {"1": " 긍정", "0": " 부정"},
}
GOOD = [(f"{number}번째로 본 영화", str(number % 2)) for number in range(60)]


def table(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(",".join(row) for row in [("text", "label"), *rows]) + "\n"


def archive() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("rows.csv", b"0" * 2**24)  # what a zip bomb is made of
    return sink.getvalue()


def parquet_bomb() -> bytes:
    sink = io.BytesIO()
    columns = pa.table({"text": ["0" * 2**24] * 40, "label": ["1"] * 40})
    pq.write_table(columns, sink, use_dictionary=False, compression="zstd")
    return sink.getvalue()


def wide_table() -> bytes:
    names = ("text", "label", *(f"c{number}" for number in range(198)))
    good = [(*row, *["x"] * 198) for row in GOOD]
    return "\n".join(",".join(row) for row in [names, names, *good, ("없다",)]).encode()


def json_lines(rows: list[tuple[str, str]]) -> bytes:
    return b"".join(json.dumps({"text": text, "label": label}).encode() + b"\n" for text, label in rows)


@dataclass(frozen=True)
class Bad:
    """A file, and what is said of it: the lines of a finding of that kind, or without a kind of the refusal."""

    content: bytes | Callable[[], bytes]  # a large one is made when it is needed
    lines: tuple[int, ...]
    kind: str | None = None
    filename: str = "rows.csv"
    template: tuple[tuple[str, Any], ...] = ()


BAD = {
    "bytes that are not UTF-8": Bad(table(GOOD).encode() + b"\xff\xfe,1\n", (62,)),
    "half a letter of CP949": Bad(table(GOOD).encode("cp949") + b"\xb0", (62,)),
    "U+0000": Bad(table(GOOD).encode() + b"a\0b,1\n", (62,)),
    "a quote that stays open": Bad(table([*GOOD, ('"열린', "1")]).encode(), (62,)),
    "text behind a quote": Bad(table([('"닫힌"말', "1"), *GOOD]).encode(), (2,)),
    "one line without end": Bad(b"text,label\n" + b"a" * (3 * 2**20), (2,)),
    "nothing": Bad(b"", (1,)),
    "a byte order mark alone": Bad(b"\xef\xbb\xbf", (1,)),
    "rows without names of columns": Bad(table(GOOD).partition("\n")[2].replace("번째로", "").encode(), (1,)),
    "a name twice": Bad(table(GOOD).replace("text,label", "text,text").encode(), (1,)),
    "one JSON list": Bad(json.dumps([{"text": "가", "label": "1"}]).encode(), (1,), filename="rows.jsonl"),
    "a Parquet bomb": Bad(parquet_bomb, (1,), filename="rows.parquet"),
    "a file cut off, as Parquet": Bad(b"PAR1" + b"\0" * 100, (1,), filename="rows.parquet"),
    "a zip bomb": Bad(archive, (1,), filename="rows.zip"),
    "a zip bomb that calls itself CSV": Bad(archive(), (1,)),
    "gzip": Bad(gzip.compress(table(GOOD).encode()), (1,), filename="rows.csv.gz"),
    "cells that are missing": Bad(table([*GOOD, ("없다",), ("많다", "1", "2")]).encode(), (62, 63), "ragged_row"),
    "cells that are missing behind 200 warnings": Bad(
        wide_table, (63,), "ragged_row", template=(("answer", " {label}"), ("verbalizers", None))
    ),
    "CSV that calls itself Parquet": Bad(table(GOOD).encode(), (1,), filename="rows.parquet"),
    "lines that are no JSON": Bad(json_lines(GOOD) + b"{'text': 1}\n[", (61, 62), "malformed_row", "rows.jsonl"),
    "names alone": Bad(b"text,label\n", (1,), "no_rows"),
    "one row": Bad(table(GOOD[:1]).encode(), (2,), "too_few_rows"),
    "one label": Bad(table([(text, "1") for text, _ in GOOD]).encode(), (2,), "one_label"),
    "a label that nobody knows": Bad(table([*GOOD, ("좋다", "긍정")]).encode(), (62,), "unknown_label"),
    "an empty text over lines": Bad(table([('"\n\n"', "1"), *GOOD]).encode(), (2,), "empty_value"),
    "a formula": Bad(table([*GOOD, ("=cmd|' /C calc'!A0", "1")]).encode(), (62,), "formula"),
    "a text too long": Bad(table([*GOOD, ("긴 글 " * 200, "1")]).encode(), (62,), "too_long"),
    "a text too long behind examples": Bad(
        table([*GOOD, ("긴 글 " * 110, "1")]).encode(), (62,), "too_long", template=(("examples", 4),)
    ),
    "personal data": Bad(table([*GOOD, ("제 번호는 000101-1000002예요", "1")]).encode(), (62,), "personal_data"),
}


def job(bad: Bad, dataset_id: str) -> CreateJobRequest:
    template = TEMPLATE | dict(bad.template)
    plan = {"account_id": ME, "name": "mood", "model": "starter", "dataset_id": dataset_id, "template": template}
    return CreateJobRequest.model_validate(plan)


@pytest.mark.parametrize("name", BAD)
async def test_no_job_starts_from(studio, name):
    bad, dataset = BAD[name], f"bad-{[*BAD].index(name)}"
    content = bad.content if isinstance(bad.content, bytes) else bad.content()
    if bad.kind is None:
        with pytest.raises(HunminError) as refused:
            await studio.upload(content, name=dataset, filename=bad.filename)
        assert refused.value.code is ErrorCode.INVALID_REQUEST
        assert refused.value.details["line"] == bad.lines[0]
        with pytest.raises(HunminError) as nothing:
            await studio.tuning.call(CREATE, job(bad, dataset))
        assert nothing.value.code is ErrorCode.NOT_FOUND
    else:
        info = await studio.upload(content, name=dataset, filename=bad.filename)
        with pytest.raises(HunminError) as refused:
            await studio.tuning.call(CREATE, job(bad, info.id))
        assert refused.value.code is ErrorCode.INVALID_REQUEST, refused.value
        findings = {finding["kind"]: finding for finding in refused.value.details["findings"]}
        assert tuple(findings[bad.kind]["lines"]) == bad.lines
    assert refused.value.message.endswith(".")
    assert (await studio.tuning.call(LIST, ListJobsRequest(account_id=ME))).data == []

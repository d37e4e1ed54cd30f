"""Conversations in OpenAI's form: each line a row of prompt and completion, or a finding that says what is wrong."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.datasets import FILE, REPORT, UPLOAD, DatasetRequest, ReportRequest, UploadRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.tuning import TuningTemplate
from hunmin_kit.testing import running
from hunmin_text.chat import render_chat
from hunmin_tuning.datasets.bounds import Bounds
from hunmin_tuning.datasets.library import BaseModel, Datasets
from hunmin_tuning.datasets.reading import Reading
from hunmin_tuning.datasets.registry import Registry
from hunmin_tuning.datasets.row import Row
from hunmin_tuning.datasets.source import inspect
from hunmin_tuning.service import SERVICE

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
ME = AccountId("acct_1")
ASKED = {"role": "user", "content": "수도는?"}
TOLD = {"role": "assistant", "content": "서울입니다."}
TEMPLATE = TuningTemplate(prompt="<|VIRTUAL_PROMPT_0|>{prompt}", answer="{completion}")


def read(*lines: Any) -> tuple[Reading, list[Row]]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    file = io.BytesIO(text.encode())
    reading = Reading(file, inspect(file, Bounds(), format="jsonl"), Bounds())
    return reading, list(reading.rows())


def chat(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def test_the_prompt_is_what_chatting_asks_and_the_completion_the_last_turn() -> None:
    system = {"role": "developer", "content": [{"type": "text", "text": "짧게 "}, {"type": "text", "text": "답하라."}]}
    turns = [ASKED, {**TOLD, "weight": 0}, {"role": "user", "content": "인구는?"}]
    reading, rows = read(
        chat(ASKED, TOLD), "", chat(system, *turns, {"role": "assistant", "content": "930만", "weight": 1})
    )
    assert (reading.is_chat, reading.columns, reading.findings.all()) == (True, ["prompt", "completion"], [])
    assert rows[0] == Row(1, {"prompt": "질문: 수도는?\n답변:", "completion": "서울입니다."})
    asked = [{"role": "system", "content": "짧게 답하라."}, *turns]
    assert rows[1] == Row(3, {"prompt": render_chat(asked, None), "completion": "930만"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "no list of messages"),
        ([chat(ASKED, TOLD)], "no list of messages"),
        (chat(), "last message is to be the assistant's"),
        (chat(TOLD), "last message is to be the assistant's"),
        (chat(ASKED, TOLD, ASKED), "last message is to be the assistant's"),
        (chat(ASKED, "서울"), "messages[1] is no object"),
        (chat({"role": "tool", "content": "x"}, TOLD), "messages[0] has none of the roles"),
        (chat({"role": ["user"], "content": "x"}, TOLD), "messages[0] has none of the roles"),
        (chat({"content": "x"}, TOLD), "messages[0] has none of the roles"),
        (chat(ASKED, {"role": "assistant"}), "messages[1] has content that is no text"),
        (chat({"role": "user", "content": [{"type": "image_url", "text": "x"}]}, TOLD), "content that is no text"),
        (chat({"role": "user", "content": [{"type": "text"}]}, TOLD), "content that is no text"),
        (chat({"role": "user", "content": []}, TOLD), "content that is no text"),
        (chat(ASKED, {**TOLD, "tool_calls": [{"id": "x"}]}), "messages[1] has tool_calls"),
        ({**chat(ASKED, TOLD), "tools": [{"type": "function"}]}, "The line has tools"),
        (chat(ASKED, {**TOLD, "weight": 0}), "weight 0"),
        (chat({"role": "user", "content": "\0"}, TOLD), "U+0000"),
        ('{"messages": [', "no JSON"),
    ],
)
def test_a_line_that_is_no_conversation_is_a_finding_with_its_line(line: Any, message: str) -> None:
    reading, rows = read(chat(ASKED, TOLD), line, chat(ASKED, TOLD))
    assert [row.line for row in rows] == [1, 3]
    (finding,) = reading.findings.all()
    assert (finding.kind, finding.severity, finding.lines) == ("malformed_row", "error", [2])
    assert message in finding.message


def test_the_first_line_decides() -> None:
    reading, rows = read({"prompt": "a", "completion": "b"}, chat(ASKED, TOLD))
    assert (reading.is_chat, [row.line for row in rows]) == (False, [1])
    assert reading.findings.all()[0].lines == [2]


async def test_they_are_kept_judged_and_read_back_as_they_came() -> None:
    content = "\n".join(
        json.dumps(chat({"role": "user", "content": f"{number}번은?"}, TOLD), ensure_ascii=False)
        for number in range(20)
    ).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    async with running(SERVICE, env={"HUNMIN_TUNING_MODELS": f'{{"starter": "{STARTER}"}}'}) as up:
        tuning = up.client("tuning")
        request = UploadRequest(account_id=ME, name="capital", filename="수도.jsonl")
        info = await tuning.upload(UPLOAD, request, pieces())
        assert (info.filename, info.is_chat, info.rows) == ("수도.jsonl", True, 20)
        asked = ReportRequest(account_id=ME, reference=info.id, template=TEMPLATE)
        report = await tuning.call(REPORT, asked)
        assert (report.passes, report.splits) == (True, {"train": 16, "validation": 2, "test": 2})
        async with tuning.stream(FILE, DatasetRequest(account_id=ME, reference=info.id)) as events:
            assert b"".join([event.root.content async for event in events]) == content
        with pytest.raises(HunminError) as caught:
            async with tuning.stream(FILE, DatasetRequest(account_id=AccountId("acct_2"), reference=info.id)):
                pass
        assert caught.value.code == ErrorCode.NOT_FOUND
        await _refuses_a_model_with_a_template_of_its_own(up.platform("tuning"), asked)


async def _refuses_a_model_with_a_template_of_its_own(platform: Any, asked: ReportRequest) -> None:
    from hunmin_tuning.datasets.models import load_models

    starter = load_models({"starter": STARTER})["starter"]
    starter.tokenizer.chat_template = "{{ messages[0].content }}"
    models = {"starter": BaseModel(starter.tokenizer, starter.context_length)}
    datasets = Datasets(Registry(platform.database()), platform.blobs(), models, Bounds())
    with pytest.raises(HunminError) as caught:
        await datasets.report(asked)
    assert (caught.value.code, caught.value.details) == (ErrorCode.INVALID_PARAMETER, {"param": "model"})

"""From a request to the trainer's folder and from there to what is served; and what a template will look like."""

import json
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import torch
from hunmin_contracts.datasets import DELETE, REPORT, DatasetInfo, DatasetRequest, ReportRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.soft_prompts import Manifest
from hunmin_contracts.tuning import Evaluation, TuningResult
from hunmin_contracts.tuning_jobs import CREATE, CreateJobRequest
from hunmin_contracts.tuning_preview import PREVIEW, PreviewRequest
from hunmin_modeling.soft_prompt import write_file
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.preparation import Preparation
from hunmin_tuning.jobs.publication import Publication
from hunmin_tuning.jobs.registry import JobLimits
from hunmin_tuning.service import TuningSettings, new_datasets
from hunmin_tuning.trainer.job import JobFolder
from hunmin_tuning.trainer.preparation import Material

pytestmark = pytest.mark.asyncio(loop_scope="module")

ME = AccountId("acct_1")
TEMPLATE = {
    "prompt": "{text}<|VIRTUAL_PROMPT_0|> 평가:",
    "answer": "{label}",
    "verbalizers": {"1": " 긍정", "0": " 부정"},
}
TABLE = "review,label\n" + "".join(f"{number}번째로 본 영화,{number % 2}\n" for number in range(60))
COLUMNS = {"text": "review"}


@pytest_asyncio.fixture(loop_scope="module")
async def dataset(studio) -> DatasetInfo:
    return await studio.upload(TABLE, name="reviews")


def request_for(dataset: DatasetInfo, **changes: Any) -> CreateJobRequest:
    fixed = {"account_id": ME, "name": "mood", "model": "starter", "dataset_id": dataset.id, "columns": COLUMNS}
    return CreateJobRequest.model_validate(fixed | {"template": TEMPLATE} | changes)


async def code_of(call) -> ErrorCode:
    with pytest.raises(HunminError) as caught:
        await call
    return caught.value.code


async def claimed(studio, request: CreateJobRequest) -> Claim:
    job = await studio.tuning.call(CREATE, request)
    platform = studio.up.platform("tuning")
    claim = await Claims(platform.database(), JobLimits(max_running_per_account=99), platform.events()).take()
    assert claim is not None
    assert claim.job_id == job.id
    return claim


async def preparation(studio) -> Preparation:
    platform = studio.up.platform("tuning")
    settings = TuningSettings(models={"starter": studio.starter})
    datasets = await new_datasets(platform, settings)
    return Preparation(datasets, platform.client("generation"), settings.models, threads=3)


async def test_a_job_is_refused_before_it_is_put_into_the_queue(studio, dataset):
    served = studio.generation.models[0]
    for change, code in (
        ({"name": "starter"}, ErrorCode.CONFLICT),
        ({"model": "other"}, ErrorCode.MODEL_NOT_FOUND),
        ({"dataset_id": "ds_nothing"}, ErrorCode.NOT_FOUND),
        ({"account_id": "acct_2"}, ErrorCode.NOT_FOUND),
        ({"columns": {}}, ErrorCode.INVALID_PARAMETER),
        ({"train_rows": 49}, ErrorCode.INVALID_REQUEST),
        ({"template": TEMPLATE | {"examples": 40}}, ErrorCode.INVALID_PARAMETER),
        ({"shares": {"train": 1, "validation": 0, "test": 1}}, ErrorCode.INVALID_REQUEST),
    ):
        assert await code_of(studio.tuning.call(CREATE, request_for(dataset, **change))) is code, change
    for unlike, code in (
        ([], ErrorCode.MODEL_NOT_FOUND),
        ([served.model_copy(update={"tokenizer_digest": "0" * 64})], ErrorCode.CONFLICT),
    ):
        studio.generation.models[:] = unlike
        assert await code_of(studio.tuning.call(CREATE, request_for(dataset))) is code
    studio.generation.models[:] = [served]


async def test_a_folder_is_filled_alike_however_often(studio, dataset, tmp_path):
    asked = request_for(dataset, train_rows=20, split_seed=3)
    claim = await claimed(studio, asked)
    prepare = (await preparation(studio)).prepare
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        await prepare(claim, tmp_path / name)
    first, second = JobFolder(tmp_path / "a"), JobFolder(tmp_path / "b")
    assert first.job.read_bytes() == second.job.read_bytes()
    assert first.rows.read_bytes() == second.rows.read_bytes()
    parts = first.read_rows()
    question = {"template": TEMPLATE, "columns": COLUMNS, "train_rows": 20, "seed": 3, "reference": "reviews"}
    report = await studio.tuning.call(REPORT, ReportRequest.model_validate({"account_id": ME} | question))
    assert (
        {name: len(rows) for name, rows in parts.items()} == report.splits == {"train": 20, "validation": 6, "test": 6}
    )
    assert set(parts["train"][0]) == {"text", "label"}
    job = first.read_job()
    assert (job.model_folder, job.evaluation_dtype, job.threads) == (studio.starter, "bfloat16", 3)
    assert job.model_digest == studio.generation.models[0].digest
    assert (job.provenance["job"], job.provenance["dataset"]) == (claim.job_id, "reviews@1")

    gone = replace(claim, request=asked.model_copy(update={"dataset_id": "ds_" + "0" * 24}))
    await prepare(gone, tmp_path / "a")  # it has its rows already
    (tmp_path / "c").mkdir()
    with pytest.raises(HunminError, match="deleted before"):
        await prepare(gone, tmp_path / "c")
    assert not JobFolder(tmp_path / "c").job.exists()


async def test_two_templates_on_the_same_rows_have_the_same_test_part(studio, dataset, tmp_path):
    prepare = (await preparation(studio)).prepare
    digests = []
    for number, change in enumerate(
        ({}, {"template": TEMPLATE | {"prompt": "{text}!<|VIRTUAL_PROMPT_0|>"}}, {"split_seed": 1})
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        await prepare(await claimed(studio, request_for(dataset, **change)), folder)
        digests.append(JobFolder(folder).read_job().provenance["test_digest"])
    assert digests[0] == digests[1] != digests[2]


async def test_what_was_learned_is_published_with_where_it_comes_from(studio, dataset, tmp_path):
    claim = await claimed(studio, request_for(dataset))
    await (await preparation(studio)).prepare(claim, tmp_path)
    files = JobFolder(tmp_path)
    provenance = files.read_job().provenance
    files.soft_prompt.write_bytes(write_file(torch.zeros(2, 4), Manifest(provenance=provenance)))
    said = Evaluation(rows=6, loss=0.5, accuracy=1.0)
    result = TuningResult(
        steps=1, best_step=1, stopped_early=False, train_loss=1.0, validation_loss=1.0, zero_shot=said, few_shot=said,
        tuned=said, weights_digest="0" * 64,
    )  # fmt: skip
    files.write_result(result)
    await studio.tuning.call(DELETE, DatasetRequest(account_id=ME, reference=dataset.id))
    publication = Publication(studio.up.platform("tuning").client("generation"))
    assert await publication.publish(claim, tmp_path) == "mood@7"
    request, content = studio.generation.published[-1]
    assert (request.name, request.model, content) == ("mood", "starter", files.soft_prompt.read_bytes())
    assert request.origin is not None
    assert (request.origin.job_id, request.origin.dataset) == (claim.job_id, f"reviews@{dataset.version}")
    assert (request.origin.result, request.origin.test_digest) == (result, provenance["test_digest"])


async def test_a_report_counts_the_examples_that_the_trainer_will_show(studio, dataset, tmp_path):
    changes = {"template": TEMPLATE | {"examples": 4}, "hyperparameters": {"seed": 9, "slots": [5]}}
    asked = request_for(dataset, **changes)
    await (await preparation(studio)).prepare(await claimed(studio, asked), tmp_path)
    files = JobFolder(tmp_path)
    model = (
        await new_datasets(studio.up.platform("tuning"), TuningSettings(models={"starter": studio.starter}))
    ).model("starter")
    material = Material(
        asked.template, asked.hyperparameters, files.read_rows(), model.tokenizer, context_length=model.context_length
    )
    question = {"template": asked.template, "columns": COLUMNS, "slots": [5], "example_seed": 9, "reference": "reviews"}
    report = await studio.tuning.call(REPORT, ReportRequest.model_validate({"account_id": ME} | question))
    asked_of = [*material.validation, *material.tuned]
    assert len(material.train) == report.splits["train"] - 4
    assert report.tokens.longest == max(len(each.prompt) + len(each.answer) for each in asked_of)
    preview = await studio.tuning.call(
        PREVIEW,
        PreviewRequest.model_validate(
            {"account_id": ME, "dataset": "reviews", **{key: question[key] for key in question if key != "reference"}}
        ),
    )
    assert preview.served == material.served
    assert len(preview.examples) == 4


async def test_a_preview_shows_text_and_tokens(studio):
    rows = [
        {"review": "재미있다", "label": "1"},
        {"review": "지루하다", "label": "0"},
        {"review": "길" * 900, "label": "1"},
    ]
    fixed = {"account_id": ME, "template": TEMPLATE | {"examples": 1}, "columns": COLUMNS, "slots": [2], "rows": rows}
    preview = await studio.tuning.call(PREVIEW, PreviewRequest.model_validate(fixed))
    assert preview.examples == [{"text": "재미있다", "label": "1"}]
    assert preview.served == "재미있다 평가: 긍정\n\n{text}<|VIRTUAL_PROMPT_0|> 평가:"
    shown, long = preview.rows
    assert (shown.line, shown.text, shown.error) == (2, "재미있다 평가: 긍정\n\n지루하다 평가: 부정", None)
    assert [token.id for token in shown.tokens if token.kind == "virtual"] == [-1, -2]
    assert "".join(token.text for token in shown.tokens if token.kind == "answer") == " 부정"
    assert "".join(token.text for token in shown.tokens) == shown.text
    assert (long.tokens, "tokens" in str(long.error)) == ([], True)
    cut = fixed | {"template": TEMPLATE | {"truncated": "text"}}
    preview = await studio.tuning.call(PREVIEW, PreviewRequest.model_validate(cut))
    assert [row.is_shortened for row in preview.rows] == [False, False, True]
    assert len(preview.rows[2].tokens) <= preview.context_length
    few = fixed | {"rows": rows[:1]}
    assert await code_of(studio.tuning.call(PREVIEW, PreviewRequest.model_validate(few))) is ErrorCode.INVALID_PARAMETER
    assert json.loads(preview.model_dump_json())["rows"][0]["tokens"][0]["kind"] == "field"

"""Soft prompts through the gateway: forms in, files and PEFT folders out, each account its own."""

import io
import json
import zipfile
from typing import Any

import httpx
import pytest
from hunmin_contracts.ids import DatasetId, JobId
from hunmin_contracts.peft import AdapterConfig
from hunmin_contracts.soft_prompts import Manifest, SoftPromptComparison, SoftPromptOrigin, SoftPromptRequest
from hunmin_contracts.tuning import Evaluation, TuningResult

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/studio/v1/soft-prompts"
FILE = bytes(range(256)) * 6000  # 1.5 MB: more than a form's parser keeps in memory
CONFIG = {"peft_type": "P_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 1, "encoder_hidden_size": 16}


async def post(studio: Any, *, file: bytes = FILE, config: Any = None, **fields: Any) -> httpx.Response:
    files = {"file": ("x.safetensors", file)}
    if config is not None:
        files["config"] = ("adapter_config.json", config if isinstance(config, bytes) else json.dumps(config).encode())
    return await studio.http.post(PATH, data={"name": "review", "model": "team/parrot"} | fields, files=files)


async def test_a_form_is_passed_on_and_the_file_comes_back(studio):
    template = "<|VIRTUAL_PROMPT_0|>" + "글" * 19_000  # longer than a URL may be
    response = await post(studio, template=template, slots="[1]", config=CONFIG)
    assert response.status_code == 201, response.text
    info = response.json()
    asked = studio.parrot.shelf.imports[-1]
    assert (asked.account_id, asked.name, asked.model) == (studio.account_id, "review", "team/parrot")
    assert (asked.template, asked.slots) == (template, [1])
    assert (asked.adapter.peft_type, asked.adapter.num_virtual_tokens) == ("P_TUNING", 1)
    reference = f"review@{info['version']}"
    assert (await studio.http.get(f"{PATH}/review")).json() == info
    assert (await studio.http.get(f"{PATH}/{reference}")).json() == info
    file = await studio.http.get(f"{PATH}/{reference}/file")
    assert (file.content, file.headers["content-type"]) == (FILE, "application/octet-stream")
    assert f'filename="review-{info["version"]}.safetensors"' in file.headers["content-disposition"]


async def test_a_file_may_be_larger_than_other_bodies(studio):
    response = await post(studio, file=bytes(17 * 2**20))  # 1,024 rows of 4,096 numbers take 16 MiB
    assert (response.status_code, response.json().get("size_bytes")) == (201, 17 * 2**20), response.text


async def test_a_peft_folder_comes_as_a_zip(studio):
    await post(studio)
    response = await studio.http.get(f"{PATH}/review/peft")
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
        assert archive.read("adapter_model.safetensors") == FILE
        config = AdapterConfig.model_validate_json(archive.read("adapter_config.json"))
    assert (config.peft_type, config.num_virtual_tokens, config.token_dim) == ("PROMPT_TUNING", 1, 8)
    assert config.base_model_name_or_path == "team/parrot"


async def test_a_template_that_peft_does_not_apply_is_told_of(studio):
    template = "<|VIRTUAL_PROMPT_0|>리뷰: {review}"
    version = (await post(studio)).json()["version"]
    asked = SoftPromptRequest(account_id=studio.account_id, reference=f"review@{version}")
    studio.parrot.shelf.change(asked, manifest=Manifest(template=template, slots=[1]))
    response = await studio.http.get(f"{PATH}/review@{version}/peft")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors", "README.md"]
        said = archive.read("README.md").decode()
    assert template in said
    assert "PEFT does not apply" in said


async def test_lists_in_pages(studio):
    versions = [(await post(studio)).json()["version"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await studio.http.get(PATH, params=query)).json()
        seen += [info["version"] for info in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == versions[::-1]


async def test_deleting_one(studio):
    reference = f"review@{(await post(studio)).json()['version']}"
    response = await studio.http.delete(f"{PATH}/{reference}")
    assert (response.status_code, response.content) == (204, b"")
    assert (await studio.http.delete(f"{PATH}/{reference}")).status_code == 404


async def test_promoting_one_and_deleting_it(studio):
    reference = f"review@{(await post(studio)).json()['version']}"
    promoted = (await studio.http.post(f"{PATH}/{reference}/promote")).json()
    assert (promoted["is_promoted"], promoted) == (True, (await studio.http.get(f"{PATH}/{reference}")).json())
    for query in ({}, {"force": "false"}):
        refused = await studio.http.delete(f"{PATH}/{reference}", params=query)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    unknown = await studio.http.delete(f"{PATH}/{reference}", params={"forced": "true"})
    assert (unknown.status_code, unknown.json()["details"]["param"]) == (400, "forced")
    assert (await studio.http.delete(f"{PATH}/{reference}", params={"force": "true"})).status_code == 204
    assert (await studio.http.post(f"{PATH}/{reference}/promote")).status_code == 404


def origin(job: int, *, accuracy: float, test: str = "a") -> SoftPromptOrigin:
    other = Evaluation(rows=4, loss=2.0, accuracy=0.5)
    result = TuningResult(
        steps=9,
        best_step=6,
        stopped_early=False,
        train_loss=1.0,
        validation_loss=1.0,
        zero_shot=other,
        few_shot=other,
        tuned=Evaluation(rows=4, loss=1.0 - accuracy / 2, accuracy=accuracy),
        weights_digest="0" * 64,
    )
    dataset = {"dataset_id": DatasetId("ds_1"), "dataset": "reviews@1", "test_digest": test * 64}
    return SoftPromptOrigin(job_id=JobId(f"job_{job}"), result=result, **dataset)


async def test_comparing_some(studio):
    references = [f"review@{(await post(studio)).json()['version']}" for _ in range(5)]
    tuned = Manifest(template="{a}<|VIRTUAL_PROMPT_0|>", tokenizer_digest="1" * 64, provenance={"seed": "1"})
    for reference, changes in zip(
        references,
        (
            {"manifest": tuned, "origin": origin(1, accuracy=0.5)},
            {
                "manifest": tuned.model_copy(update={"provenance": {"seed": "2"}}),
                "origin": origin(2, accuracy=0.75),
                "n_virtual": 4,
            },
            {"manifest": tuned, "origin": origin(3, accuracy=1.0, test="b")},
            {"manifest": tuned.model_copy(update={"tokenizer_digest": "2" * 64}), "origin": origin(4, accuracy=0.25)},
            {"manifest": tuned},
        ),
        strict=True,
    ):
        asked = SoftPromptRequest(account_id=studio.account_id, reference=reference)
        studio.parrot.shelf.change(asked, **changes)
    response = await studio.http.post(f"{PATH}/compare", json={"references": references})
    assert response.status_code == 200, response.text
    compared = SoftPromptComparison.model_validate_json(response.content).data
    assert [f"{one.soft_prompt.name}@{one.soft_prompt.version}" for one in compared] == references
    assert [one.soft_prompt.origin and one.soft_prompt.origin.job_id for one in compared] == [
        *(f"job_{job}" for job in range(1, 5)),
        None,
    ]
    assert [one.is_same_test for one in compared] == [True, True, False, True, None]
    assert [one.difference and (one.difference.loss, one.difference.accuracy) for one in compared] == [
        (0.0, 0.0),
        (-0.125, 0.25),
        None,
        (None, -0.25),
        None,
    ]
    assert compared[1].difference is not None
    assert compared[1].difference.bleu is None
    assert [one.differs_in for one in compared[:4]] == [
        [],
        ["n_virtual", "manifest.provenance.seed"],
        ["origin.test_digest"],
        ["manifest.tokenizer_digest"],
    ]
    assert "origin.dataset" in compared[4].differs_in


@pytest.mark.parametrize(
    ("references", "status"),
    [
        (["poet"], 400),
        (["poet"] * 21, 400),
        (["poet", "poet/file"], 400),
        (["poet", ".."], 400),
        (["poet", "none@1"], 404),
        (["poet", "poet@1"], 200),
    ],
)
async def test_what_can_be_compared(studio, references: list[str], status: int):
    response = await studio.http.post(f"{PATH}/compare", json={"references": references})
    assert response.status_code == status, response.text
    assert status != 404 or "'none@1'" in response.json()["detail"]


async def test_models_list_the_accounts_own(studio):
    version = (await post(studio)).json()["version"]
    listed = (await studio.client.models.list()).data
    assert [model.id for model in listed] == ["team/parrot", f"review@{version}"]
    assert (listed[1].owned_by, listed[1].parent) == (studio.account_id, "team/parrot")
    for name in ("review", f"review@{version}"):
        assert (await studio.client.models.retrieve(name)).id == f"review@{version}"
    for name in ("none", "review/file", "review@99999"):
        response = await studio.http.get(f"/v1/models/{name}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_another_accounts_are_not_there(studio):
    reference = f"review@{(await post(studio)).json()['version']}"
    shelf = studio.parrot.shelf
    shelf.files["acct_other", reference] = shelf.files.pop((studio.account_id, reference))
    assert (await studio.http.get(PATH)).json() == {"data": [], "next_cursor": None}
    for suffix in ("", "/file", "/peft"):
        assert (await studio.http.get(f"{PATH}/{reference}{suffix}")).status_code == 404
    assert (await studio.http.delete(f"{PATH}/{reference}")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"name": "Review"}, 400, "name"),
        ({"name": "a@1"}, 400, "name"),
        ({"slots": "[0]"}, 400, "slots"),
        ({"slots": "1,2"}, 400, "slots"),
        ({"slots": "[" + "1," * 64 + "1]"}, 400, "slots"),
        ({"template": "글" * 20_001}, 400, "template"),
        ({"template": ""}, 400, "template"),
        ({"slots": ""}, 400, "slots"),
        ({"name": ["review", "review"]}, 400, "name"),
        ({"colour": "red"}, 400, "colour"),
        ({"config": b"{"}, 400, "config"),
        ({"config": CONFIG | {"peft_type": "LORA"}}, 400, "config"),
        ({"config": CONFIG | {"task_type": "SEQ_2_SEQ_LM"}}, 400, "config"),
        ({"config": b" " * 70_000}, 413, "config"),
        ({"file": b"PK\x03\x04"}, 400, "file"),
    ],
)
async def test_what_is_wrong_with_a_form_is_named(studio, fields: dict[str, Any], status: int, param: str):
    response = await post(studio, **fields)
    assert response.status_code == status, response.text
    assert response.json()["details"]["param"] == param


async def test_what_is_no_form_is_refused(studio):
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    for content, headers, said in [
        (b'{"name": "review"}', {"content-type": "application/json"}, "file is missing"),
        (b"", {}, "file is missing"),
        (b"nothing", {"content-type": "multipart/form-data"}, "boundary"),
        (b"nothing", multipart, "cannot be read"),
        (b'--x\r\ncontent-disposition: form-data; name="name"\r\n\r\nreview', multipart, "missing"),
        (b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\nAA\r\n--x--\r\n', multipart, "file"),
        (b"name=review&model=a", {"content-type": "application/x-www-form-urlencoded"}, "file is missing"),
    ]:
        response = await studio.http.post(PATH, content=content, headers=headers)
        assert (response.status_code, said in response.json()["detail"]) == (400, True), response.text


async def test_needs_a_key(studio):
    async with httpx.AsyncClient(base_url=studio.url) as http:
        assert (await http.get(PATH)).status_code == 401
        assert (await http.post(PATH, files={"file": b"x"})).status_code == 401

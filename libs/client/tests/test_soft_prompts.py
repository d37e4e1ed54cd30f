"""The life of a soft prompt, by both clients against a real gateway: up, used by name, down, out to PEFT, gone."""

import json
from pathlib import Path

import openai
import pytest
import torch
from hunmin import ConflictError, InvalidRequestError, NotFoundError
from hunmin.tuning import PromptLoss
from hunmin_contracts.soft_prompts import TENSOR
from safetensors.torch import load, load_file

TEMPLATE = "<|VIRTUAL_PROMPT_0|>{review}<|VIRTUAL_PROMPT_1|>"


def rows(seed: int, *, n_virtual: int = 5) -> torch.Tensor:
    return torch.randn(n_virtual, 256, generator=torch.Generator().manual_seed(seed)) * 0.05


def test_blocking(studio, tmp_path):
    with studio.client() as client:
        loss_of = PromptLoss(client, "starter", template=TEMPLATE, slots=[2, 3])
        file = loss_of.file(rows(0), task="sentiment")
        first = client.soft_prompts.upload(file, name="blocking", model="starter")
        (tmp_path / "second.safetensors").write_bytes(loss_of.file(rows(1)))
        second = client.soft_prompts.upload(tmp_path / "second.safetensors", name="blocking", model="starter")
        assert (first.version, second.version, second.n_virtual) == (1, 2, 5)
        assert first.manifest.provenance == {"task": "sentiment"}
        assert client.soft_prompts.get("blocking") == second
        listed = client.soft_prompts.list(name="blocking", page_size=1)
        assert [info.version for info in listed] == [2, 1]
        assert client.soft_prompts.download("blocking@1") == file

        asked = {"prompt": {"review": "재미있다"}, "continuations": [" 최고", " 최악"]}
        by_name, by_version, base = (
            client.score(model=model, **asked | extra).scores[0].logprob
            for model, extra in (
                ("blocking", {}),
                ("blocking@1", {}),
                ("starter", {"prompt": "재미있다"}),
            )
        )
        assert len({by_name, by_version, base}) == 3
        with openai.OpenAI(base_url=f"{studio.url}/v1", api_key=studio.key) as other:
            assert other.completions.create(model="blocking@1", prompt="재미있다", max_tokens=2).usage.completion_tokens

        compared = client.soft_prompts.compare(["blocking@1", "blocking"]).data
        assert [one.soft_prompt.version for one in compared] == [1, 2]
        promoted = client.soft_prompts.promote("blocking@1")
        assert promoted == client.soft_prompts.get("blocking") == first.model_copy(update={"is_promoted": True})
        with pytest.raises(ConflictError):
            client.soft_prompts.delete("blocking@1")
        client.soft_prompts.delete("blocking@1", force=True)
        assert client.soft_prompts.get("blocking") == second
        client.soft_prompts.delete("blocking")
        with pytest.raises(NotFoundError):
            client.soft_prompts.get("blocking")


async def test_awaited(studio):
    async with studio.async_client() as client:
        with studio.client() as blocking:
            file = PromptLoss(blocking, "starter").file(rows(2))
        for _ in range(2):
            info = await client.soft_prompts.upload(file, name="awaited", model="starter")
        assert [one.version async for one in client.soft_prompts.list(name="awaited", page_size=1)] == [2, 1]
        assert await client.soft_prompts.get("awaited@2") == info
        assert await client.soft_prompts.download("awaited@2") == file
        scored = await client.score(model="awaited", prompt="재미있다", continuations=[[5, 6]])
        assert scored.continuation_tokens == 2
        for _ in range(2):
            await client.soft_prompts.delete("awaited")
        assert [one async for one in client.soft_prompts.list(name="awaited")] == []


def test_goes_out_to_a_peft_folder_and_comes_back(studio, tmp_path: Path):
    with studio.client() as client:
        file = PromptLoss(client, "starter").file(rows(3))
        client.soft_prompts.upload(file, name="out", model="starter")
        folder = client.soft_prompts.export_peft("out", tmp_path / "adapter")
        assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["num_virtual_tokens"] == 5
        assert torch.equal(load_file(folder / "adapter_model.safetensors")[TENSOR], rows(3))
        back = client.soft_prompts.upload(folder, name="back", model="starter")
        assert torch.equal(load(client.soft_prompts.download("back"))[TENSOR], rows(3))
        assert back.n_virtual == 5
        for name in ("out", "back"):
            client.soft_prompts.delete(name)


def test_a_file_that_cannot_be_served_is_refused(studio):
    with studio.client() as client, pytest.raises(InvalidRequestError) as refusal:
        client.soft_prompts.upload(b"PK\x03\x04 a pickle in a zip", name="bad", model="starter")
    assert refusal.value.details["param"] == "file"

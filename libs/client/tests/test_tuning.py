"""The loss of the studio as a torch function, and training through it."""

import base64
import json

import httpx
import pytest
import torch
from hunmin import Client, GradientExample, NotFoundError, StudioError
from hunmin.tuning import LstmPromptEncoder, MlpPromptEncoder, PromptLoss
from hunmin_contracts.soft_prompts import METADATA, TENSOR, Manifest
from safetensors.torch import load, save
from tuning_curves import LocalLoss, as_batches, local_model, train

REVIEWS = [
    ("정말 재미있게 봤다", 1),
    ("시간이 아깝다", 0),
    ("배우들의 연기가 훌륭하다", 1),
    ("지루하고 뻔한 이야기", 0),
    ("최고의 영화! 두 번 봤어요", 1),
    ("돈 아까운 쓰레기", 0),
    ("감동적이었다", 1),
    ("끝까지 보기 힘들었다", 0),
]


def parts_of(request: httpx.Request) -> dict[str, bytes]:
    """The parts of a form, by name."""
    boundary = request.headers["content-type"].partition("boundary=")[2]
    parts = {}
    for part in request.read().split(f"--{boundary}".encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        parts[head.partition(b'name="')[2].partition(b'"')[0].decode()] = content.removesuffix(b"\r\n")
    return parts


def half_square(request: httpx.Request) -> httpx.Response:
    """A server whose loss is half the sum of the rows' squares: its gradient is the rows."""
    parts = parts_of(request)
    body, rows = json.loads(parts["request"]), load(parts["soft_prompt"])[TENSOR]
    gradient = base64.b64encode(save({"gradient": rows})).decode()
    reply = {
        "loss": float(rows.square().sum() / 2),
        "examples": [],
        "usage": {"prompt_tokens": 1, "backward_tokens": 1},
    }
    return httpx.Response(200, json=reply | ({} if body["gradient_format"] == "none" else {"gradient": gradient}))


@pytest.fixture
def scripted():
    with Client(api_key="k", transport=httpx.MockTransport(half_square)) as client:
        yield client


class TestAutograd:
    batch = [GradientExample(fields={"review": "가"}, target="나")]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_the_gradient_flows_to_whatever_made_the_rows(self, scripted, dtype):
        weight = torch.randn(3, 8, dtype=dtype, requires_grad=True)
        loss = 4 * PromptLoss(scripted, "starter")(2 * weight, self.batch)
        loss.backward()
        assert loss.item() == pytest.approx(float((2 * weight.detach().double()).square().sum() * 2), rel=0.02)
        assert weight.grad.dtype == dtype
        assert torch.allclose(weight.grad, 16 * weight)

    def test_without_need_no_gradient_is_asked_for(self, scripted):
        loss_of = PromptLoss(scripted, "starter")
        assert not loss_of(torch.ones(2, 4), self.batch).requires_grad
        with torch.no_grad():
            assert loss_of(torch.ones(2, 4, requires_grad=True), self.batch).item() == 4

    def test_a_template_goes_to_the_examples_that_have_no_prompt_of_their_own(self):
        sent = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(json.loads(parts_of(request)["request"]))
            return half_square(request)

        with Client(api_key="k", transport=httpx.MockTransport(answer)) as client:
            loss_of = PromptLoss(client, "starter", template="<|VIRTUAL_PROMPT_0|>{review}", slots=(2,))
            own = GradientExample(template="{review}<|VIRTUAL_PROMPT_0|>", fields={"review": "가"}, target="나")
            loss_of(torch.ones(2, 4), [*self.batch, own, GradientExample(tokens=[-1, 5, -2], target=[3])])
        (body,) = sent
        assert body["slots"] == [2]
        assert [example.get("template") for example in body["examples"]] == [loss_of.template, own.template, None]


class TestTraining:
    @pytest.mark.parametrize("kind", [LstmPromptEncoder, MlpPromptEncoder])
    def test_follows_the_curve_of_a_local_run(self, studio, kind):
        with studio.client() as client:
            remote = PromptLoss(client, "starter")
            batches = as_batches(client, "starter", REVIEWS, size=4, n_virtual=6) * 6

            def curve(loss_of):
                return train(loss_of, kind(6, remote.base.d_model, scale=remote.base.embedding_std, seed=3), batches)

            ours = curve(remote)
        assert ours == pytest.approx(curve(LocalLoss(local_model())), abs=1e-4)
        assert ours[-1] < ours[0] - 0.3

    def test_an_unknown_model_is_named(self, studio):
        with studio.client() as client:
            loss_of = PromptLoss(client, "gpt-4")
            with pytest.raises(StudioError, match=r"'gpt-4' is no base model \(starter\)"):
                _ = loss_of.base
            with pytest.raises(NotFoundError):
                loss_of(torch.zeros(2, 256), TestAutograd.batch)


def test_a_soft_prompt_is_trained_further_as_it_is_served(studio):
    with studio.client() as client:
        template, example = "{review}<|VIRTUAL_PROMPT_0|>", GradientExample(fields={"review": "가"}, target="나")
        first = PromptLoss(client, "starter", template=template, slots=[2])
        rows = torch.full((2, first.base.d_model), 0.01, dtype=torch.float64)
        client.soft_prompts.upload(first.file(rows), name="further", model="starter")
        loss_of = PromptLoss(client, "further@1")
        assert loss_of(rows, [example]).item() == pytest.approx(first(rows, [example]).item())
        file = loss_of.file(rows.float() * 2)
        kept = client.soft_prompts.upload(file, name="further", model="starter")
        assert (kept.manifest.template, kept.manifest.slots) == (template, [2])
        assert loss_of.base == first.base
        for version in (1, 2):
            client.soft_prompts.delete(f"further@{version}")


def test_a_file_says_what_it_was_trained_for(studio):
    with studio.client() as client:
        loss_of = PromptLoss(client, "starter", template="<|VIRTUAL_PROMPT_0|>{review}", slots=[2])
        file = loss_of.file(torch.ones(2, 4, requires_grad=True), seed="3")
    assert torch.equal(load(file)[TENSOR], torch.ones(2, 4))
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    manifest = Manifest.model_validate_json(header["__metadata__"][METADATA])
    assert (manifest.template, manifest.slots, manifest.provenance) == (loss_of.template, [2], {"seed": "3"})
    assert (manifest.model_digest, manifest.tokenizer_digest) == (loss_of.base.digest, loss_of.base.tokenizer_digest)

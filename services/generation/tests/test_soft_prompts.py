"""Soft prompts over the service's HTTP: imported, listed, read, deleted, and served in the place of tokens."""

import asyncio
import ctypes
import gc
import json
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    GENERATE,
    MODELS,
    ChunkEvent,
    GenerateRequest,
    Message,
    ModelInfo,
    PromptEvent,
    Sampling,
)
from hunmin_contracts.peft import adapter_of
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import (
    DELETE,
    DESCRIBE,
    IMPORT,
    LIST,
    PROMOTE,
    READ,
    DeleteRequest,
    ImportRequest,
    ListRequest,
    Manifest,
    PromoteRequest,
    SoftPromptInfo,
    SoftPromptOrigin,
    SoftPromptPage,
    SoftPromptRequest,
)
from hunmin_contracts.tuning import Evaluation, TuningResult
from hunmin_generation.service import SERVICE
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_modeling.soft_prompt import MAX_HEADER_BYTES, read_file, write_file
from hunmin_modeling.testing import save_tiny_checkpoint, tiny_model
from hunmin_text.artefact import load
from hunmin_text.prompt_template import encode_template
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train
from psutil import Process
from safetensors.torch import save

D_MODEL = 32
VOCABULARY = 290
TEMPLATE = "<|VIRTUAL_PROMPT_0|>리뷰: {review}\n<|VIRTUAL_PROMPT_1|>감정:"
ACCOUNT = "acct_1"


def rows(seed: int = 0, count: int = 3) -> torch.Tensor:
    """Rows as large as the tiny models' embeddings."""
    return torch.randn(count, D_MODEL, generator=torch.Generator().manual_seed(seed)) * 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of byte-level tokens."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_checkpoint(folder, "gpt2", vocab_size=VOCABULARY, context_length=400)
    train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=VOCABULARY).backend.save(
        str(folder / "tokenizer.json")
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load(folder)


def environment(folder: Path, **settings: object) -> dict[str, str]:
    given = {"models": json.dumps({"one": str(folder)}), "threads": 1, "block_size": 8} | settings
    return {f"HUNMIN_GENERATION_{name.upper()}": str(value) for name, value in given.items()}


@pytest.fixture
async def service(folder: Path) -> AsyncIterator[Running]:
    async with running(SERVICE, env=environment(folder)) as services:
        yield services


async def sent(file: bytes) -> AsyncIterator[bytes]:
    yield file


async def keep(service: Running, file: bytes, name: str = "review", **fields: Any) -> SoftPromptInfo:
    request = ImportRequest(**{"account_id": ACCOUNT, "name": name, "model": "one"} | fields)
    return await service.client("generation").upload(IMPORT, request, sent(file))


async def described(service: Running, reference: str, account: str = ACCOUNT) -> SoftPromptInfo:
    request = SoftPromptRequest(account_id=account, reference=reference)
    return await service.client("generation").call(DESCRIBE, request)


async def delete(service: Running, reference: str, account: str = ACCOUNT, *, force: bool = False) -> None:
    request = DeleteRequest(account_id=account, reference=reference, force=force)
    await service.client("generation").call(DELETE, request)


async def promote(service: Running, reference: str, account: str = ACCOUNT) -> SoftPromptInfo:
    return await service.client("generation").call(PROMOTE, PromoteRequest(account_id=account, reference=reference))


async def promoted(service: Running) -> list[str]:
    """Every promoted version of the account."""
    page = await service.client("generation").call(LIST, ListRequest(account_id=ACCOUNT, limit=200))
    return [f"{info.name}@{info.version}" for info in page.data if info.is_promoted]


def origin(job_id: str = "job_1") -> SoftPromptOrigin:
    evaluation = Evaluation(rows=4, loss=0.5, accuracy=0.75)
    result = TuningResult(
        steps=9,
        best_step=6,
        stopped_early=True,
        train_loss=0.25,
        validation_loss=0.5,
        zero_shot=evaluation,
        few_shot=evaluation,
        tuned=evaluation,
        weights_digest="ab" * 32,
    )
    return SoftPromptOrigin(job_id=job_id, dataset_id="ds_1", dataset="reviews@1", test_digest="cd" * 32, result=result)


async def model(service: Running) -> ModelInfo:
    return (await service.client("generation").call(MODELS, Empty())).models[0]


async def generated(service: Running, name: str, prompt: Any, account: str = ACCOUNT) -> tuple[int, list[int]]:
    """Complete greedily; return the prompt's length and the ids."""
    request = GenerateRequest(
        account_id=account, model=name, prompt=prompt, max_tokens=8, logprobs=0, sampling=Sampling(temperature=0)
    )
    length, ids = 0, []
    async with service.client("generation").stream(GENERATE, request) as events:
        async for event in events:
            if isinstance(event.root, PromptEvent):
                length = event.root.prompt_tokens
            if isinstance(event.root, ChunkEvent):
                ids += [token.id for token in event.root.tokens]
    return length, ids


def expected(prompt: list[int], soft: torch.Tensor) -> list[int]:
    """What transformers completes, given the embeddings of that prompt."""
    base = tiny_model("gpt2", vocab_size=VOCABULARY, context_length=400)
    table = base.get_input_embeddings().weight
    embedded = torch.stack([table[token] if token >= 0 else soft[-1 - token] for token in prompt])
    ids = base.generate(inputs_embeds=embedded[None], max_new_tokens=8, do_sample=False, pad_token_id=0)[0].tolist()
    return ids[: ids.index(0)] if 0 in ids else ids


async def metric(service: Running, name: str) -> float:
    page = (await service.http("generation").get("/metrics")).text
    line = next(line for line in page.splitlines() if line.startswith(f"hunmin_generation_soft_prompt{name} "))
    return float(line.split()[-1])


def resident_bytes() -> int:
    """How much memory this process holds, without what is free and was not given back yet."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return Process().memory_info().rss


class TestRegistry:
    async def test_an_import_is_the_next_version_with_all_that_is_known(self, service: Running) -> None:
        first = await keep(service, save({"prompt_embeddings": rows()}), template=TEMPLATE, slots=[1, 2])
        base = await model(service)
        assert (first.name, first.version, first.model) == ("review", 1, "one")
        assert (first.n_virtual, first.d_model, first.dtype) == (3, D_MODEL, "float32")
        assert first.manifest == Manifest(
            model_digest=base.digest, tokenizer_digest=base.tokenizer_digest, template=TEMPLATE, slots=[1, 2]
        )
        second = await keep(service, write_file(rows(1).half(), Manifest(provenance={"run": "7"})))
        assert (second.version, second.dtype, second.manifest.provenance) == (2, "float16", {"run": "7"})
        assert await described(service, "review") == second
        assert await described(service, "review@1") == first

    async def test_concurrent_imports_get_a_version_each(self, service: Running) -> None:
        infos = await asyncio.gather(*(keep(service, write_file(rows(seed), Manifest())) for seed in range(12)))
        assert sorted(info.version for info in infos) == list(range(1, 13))

    async def test_the_kept_file_holds_the_completed_manifest_and_can_be_imported_again(self, service: Running) -> None:
        info = await keep(service, save({"prompt_embeddings": rows().bfloat16()}), template=TEMPLATE, slots=[1, 2])
        request = SoftPromptRequest(account_id=ACCOUNT, reference="review@1")
        file = (await service.client("generation").call(READ, request)).content
        found = read_file(file, d_model=D_MODEL)
        assert torch.equal(found.rows, rows().bfloat16())
        assert (found.manifest, len(file)) == (info.manifest, info.size_bytes)
        again = await keep(service, file, "again")
        assert (again.manifest, again.digest) == (info.manifest, info.digest)

    async def test_a_file_whose_manifest_says_all_is_kept_byte_for_byte(self, service: Running) -> None:
        base = await model(service)
        manifest = Manifest(model_digest=base.digest, tokenizer_digest=base.tokenizer_digest, provenance={"a": "b"})
        file = write_file(rows(), manifest).replace(b'{"__metadata__"', b'{ "__metadata__"').replace(b"}  ", b"} ", 1)
        await keep(service, file)
        request = SoftPromptRequest(account_id=ACCOUNT, reference="review")
        assert (await service.client("generation").call(READ, request)).content == file

    async def test_lists_by_name_newest_first_in_pages(self, service: Running) -> None:
        for name in ("b", "a", "b", "c", "a"):
            await keep(service, write_file(rows(), Manifest()), name)
        await keep(service, write_file(rows(), Manifest()), "foreign", account_id="acct_2")
        seen: list[str] = []
        after = None
        while True:
            request = ListRequest(account_id=ACCOUNT, limit=2, after=after)
            page: SoftPromptPage = await service.client("generation").call(LIST, request)
            seen += [f"{info.name}@{info.version}" for info in page.data]
            if not page.has_more:
                break
            after = page.data[-1].id
        assert seen == ["a@2", "a@1", "b@2", "b@1", "c@1"]
        page = await service.client("generation").call(LIST, ListRequest(account_id=ACCOUNT, name="b"))
        assert [info.version for info in page.data] == [2, 1]

    async def test_a_deleted_version_is_gone_and_does_not_come_again(self, service: Running) -> None:
        for seed in range(3):
            await keep(service, write_file(rows(seed), Manifest()))
        await delete(service, "review")
        await delete(service, "review@1")
        assert (await described(service, "review")).version == 2
        assert (await keep(service, write_file(rows(), Manifest()))).version == 4
        for reference in ("review@1", "review@3"):
            with pytest.raises(HunminError, match="no soft prompt"):
                await delete(service, reference)

    @pytest.mark.parametrize("reference", ["review", "review@1", "none", "review@", "review@0", "Review", "a/b", "@1"])
    async def test_what_is_unknown_or_another_accounts_is_not_found(self, service: Running, reference: str) -> None:
        await keep(service, write_file(rows(), Manifest()))
        for call in (described, delete):
            with pytest.raises(HunminError) as caught:
                await call(service, reference, "acct_2")
            assert caught.value.code == ErrorCode.NOT_FOUND
        with pytest.raises(HunminError) as caught:
            await generated(service, reference, "가", "acct_2")
        assert caught.value.code == ErrorCode.MODEL_NOT_FOUND


class TestImportOfAJob:
    async def test_it_is_kept_with_its_origin(self, service: Running) -> None:
        info = await keep(service, write_file(rows(), Manifest()), origin=origin())
        assert info.origin == origin()
        assert await described(service, "review@1") == info
        assert (await keep(service, write_file(rows(), Manifest()))).origin is None

    async def test_a_second_one_is_the_version_that_is_there(self, service: Running) -> None:
        first = await keep(service, write_file(rows(), Manifest()), origin=origin())
        assert await keep(service, write_file(rows(1), Manifest()), origin=origin()) == first
        assert await keep(service, b"cut off", "other", origin=origin()) == first
        for fields in ({"origin": origin("job_2")}, {"origin": origin(), "account_id": "acct_2"}, {}):
            assert (await keep(service, write_file(rows(), Manifest()), **fields)).id != first.id
        assert (await described(service, "review")).version == 3

    @pytest.mark.parametrize("names", [["review"], ["review", "other"]])
    async def test_at_once_they_are_one_version_and_one_file(self, service: Running, names: list[str]) -> None:
        imports = [
            keep(service, write_file(rows(seed), Manifest()), names[seed % len(names)], origin=origin())
            for seed in range(12)
        ]
        infos = await asyncio.gather(*imports)
        assert {info.id for info in infos} == {infos[0].id}
        page = await service.client("generation").call(LIST, ListRequest(account_id=ACCOUNT))
        assert page.data == [infos[0]]
        assert len(list((service.platform("generation").home / "blobs" / "soft-prompts").iterdir())) == 1
        assert (await keep(service, write_file(rows(), Manifest()), infos[0].name)).version == 2

    async def test_after_its_version_was_deleted_it_is_a_new_one(self, service: Running) -> None:
        await keep(service, write_file(rows(), Manifest()), origin=origin())
        await delete(service, "review@1")
        assert (await keep(service, write_file(rows(), Manifest()), origin=origin())).version == 2


class TestPromotion:
    async def test_the_name_means_the_promoted_version_for_the_very_next_request(self, service: Running) -> None:
        for seed in (1, 2, 3):
            await keep(service, write_file(rows(seed), Manifest()))
        assert (await promoted(service), (await described(service, "review")).version) == ([], 3)
        for version in (1, 3, 2, 2):
            info = await promote(service, f"review@{version}")
            assert info == await described(service, "review")
            assert (info.version, info.is_promoted, await promoted(service)) == (version, True, [f"review@{version}"])
            assert (await generated(service, "review", [5, 6]))[1] == expected([-1, -2, -3, 5, 6], rows(version))
        await keep(service, write_file(rows(4), Manifest()))
        assert (await described(service, "review")).version == 2

    async def test_a_request_that_runs_goes_on_with_what_it_began_with(self, service: Running) -> None:
        for seed in (1, 2):
            await keep(service, write_file(rows(seed), Manifest()))
        request = GenerateRequest(
            account_id=ACCOUNT, model="review", prompt=[5, 6], max_tokens=60, sampling=Sampling(temperature=0)
        )
        texts: list[str] = []
        for version in (None, 1, 1):
            async with service.client("generation").stream(GENERATE, request) as events:
                await anext(events)
                if version is not None:
                    await promote(service, f"review@{version}")
                chunks = [event.root async for event in events]
            texts.append("".join(chunk.text for chunk in chunks if isinstance(chunk, ChunkEvent)))
        assert texts[0] == texts[1] != texts[2]

    async def test_at_once_one_is_promoted_in_the_end(self, service: Running) -> None:
        for seed in range(6):
            await keep(service, write_file(rows(seed), Manifest()))
        await asyncio.gather(*(promote(service, f"review@{number % 6 + 1}") for number in range(18)))
        assert len(await promoted(service)) == 1

    async def test_names_and_accounts_are_apart(self, service: Running) -> None:
        for name in ("a", "b"):
            await keep(service, write_file(rows(), Manifest()), name)
        await keep(service, write_file(rows(), Manifest()), "a", account_id="acct_2")
        await promote(service, "a@1")
        await promote(service, "b@1")
        assert await promoted(service) == ["a@1", "b@1"]
        assert not (await described(service, "a", "acct_2")).is_promoted

    @pytest.mark.parametrize(
        ("reference", "account", "status"),
        [("review", ACCOUNT, 400), ("review@2", ACCOUNT, 404), ("other@1", ACCOUNT, 404), ("review@1", "acct_2", 404)],
    )
    async def test_what_names_no_version_of_the_account_is_refused(
        self, service: Running, reference: str, account: str, status: int
    ) -> None:
        await keep(service, write_file(rows(), Manifest()))
        await promote(service, "review@1")
        with pytest.raises(HunminError) as caught:
            await promote(service, reference, account)
        assert caught.value.status == status
        assert await promoted(service) == ["review@1"]

    async def test_a_promoted_version_is_deleted_by_force_alone(self, service: Running) -> None:
        for seed in (1, 2, 3):
            await keep(service, write_file(rows(seed), Manifest()))
        await promote(service, "review@1")
        for reference in ("review@1", "review"):
            with pytest.raises(HunminError, match="Promote another version first") as caught:
                await delete(service, reference)
            assert caught.value.code == ErrorCode.CONFLICT
        assert (await generated(service, "review", [5, 6]))[1] == expected([-1, -2, -3, 5, 6], rows(1))
        await delete(service, "review@3")
        await delete(service, "review", force=True)
        assert (await described(service, "review")).version == 2
        assert await promoted(service) == []

    async def test_deleted_and_promoted_at_once_it_is_one_of_both(self, service: Running) -> None:
        for number in range(8):
            for seed in (1, 2):
                await keep(service, write_file(rows(seed), Manifest()), f"race-{number}")
        calls = [
            call(service, f"race-{number}@1")
            for number in range(8)
            for call in ((promote, delete) if number % 2 else (delete, promote))
        ]
        refused = [each for each in await asyncio.gather(*calls, return_exceptions=True) if isinstance(each, Exception)]
        assert len(refused) == 8
        for error in refused:
            assert isinstance(error, HunminError)
            assert error.code in (ErrorCode.CONFLICT, ErrorCode.NOT_FOUND)

    async def test_one_that_the_model_no_longer_fits_is_not_promoted(self, folder: Path, tmp_path: Path) -> None:
        async with fresh_database() as url:
            place = {"HUNMIN_HOME": str(tmp_path), "HUNMIN_DATABASE_URL": url}
            async with running(SERVICE, env=environment(folder) | place) as before:
                await keep(before, write_file(rows(), Manifest()))
            other = environment(folder) | {"HUNMIN_GENERATION_MODELS": json.dumps({"two": str(folder)})}
            async with running(SERVICE, env=other | place) as after:
                with pytest.raises(HunminError, match="no model 'one'"):
                    await promote(after, "review@1")


class TestImportIsRefused:
    @pytest.mark.parametrize(
        ("fields", "status", "said"),
        [
            ({"model": "two"}, 404, "no model 'two'"),
            ({"name": "one"}, 409, "name of a model"),
            ({"template": "no slot"}, 400, "has the slots none"),
            ({"template": "{a"}, 400, "no field"),
            ({"template": TEMPLATE}, 400, "Say in `slots`"),
            ({"template": TEMPLATE, "slots": [1, 1]}, 400, "take"),
            ({"slots": [4]}, 400, "take"),
            ({"adapter": adapter_of(n_virtual=4, d_model=D_MODEL, base_model=None)}, 400, "two adapters"),
        ],
    )
    async def test_where_fields_do_not_fit(
        self, service: Running, fields: dict[str, Any], status: int, said: str
    ) -> None:
        with pytest.raises(HunminError, match=said) as caught:
            await keep(service, write_file(rows(), Manifest()), **fields)
        assert caught.value.status == status

    @pytest.mark.parametrize(
        ("manifest", "said"),
        [
            (Manifest(model_digest="ab" * 32), "for a checkpoint with sha256 abababababab"),
            (Manifest(tokenizer_digest="cd" * 32), "for a tokenizer with sha256 cdcdcdcdcdcd"),
        ],
    )
    async def test_where_it_was_made_for_another_model(self, service: Running, manifest: Manifest, said: str) -> None:
        with pytest.raises(HunminError, match=said) as caught:
            await keep(service, write_file(rows(), manifest))
        assert caught.value.code == ErrorCode.CONFLICT

    async def test_where_file_and_request_contradict_each_other(self, service: Running) -> None:
        file = write_file(rows(), Manifest(template="<|VIRTUAL_PROMPT_0|>{a}"))
        with pytest.raises(HunminError, match="its own template"):
            await keep(service, file, template="<|VIRTUAL_PROMPT_0|>{b}")
        assert (await keep(service, file, template="<|VIRTUAL_PROMPT_0|>{a}")).version == 1

    async def test_where_more_would_be_kept_of_it_than_is_read(self, service: Running) -> None:
        adapter = adapter_of(n_virtual=3, d_model=D_MODEL, base_model="team/base")
        full = Manifest(provenance={f"key {number}": "" for number in range(64)})
        with pytest.raises(HunminError, match=r"64 entries of provenance, and with those of .* 66") as caught:
            await keep(service, write_file(rows(), full), adapter=adapter)
        assert (caught.value.status, caught.value.details["param"]) == (400, "config")
        assert (await keep(service, write_file(rows(), full))).manifest.provenance == full.provenance
        long = Manifest(provenance={"a": "b" * (MAX_HEADER_BYTES - 300)})
        with pytest.raises(HunminError, match="Shorten its metadata") as caught:
            await keep(service, write_file(rows(), long))
        assert caught.value.code is ErrorCode.TOO_LARGE

    @pytest.mark.parametrize("slots", ["[1025]", "[1024,1]", f"[{'9' * 4300},{'9' * 4300}]", "[0,3]"])
    async def test_where_its_slots_are_of_no_soft_prompt(self, service: Running, slots: str) -> None:
        with pytest.raises(HunminError, match=r"is not a manifest \(slots") as caught:
            await keep(service, save({"prompt_embeddings": rows()}, {"hunmin": f'{{"slots":{slots}}}'}))
        assert caught.value.status == 400

    async def test_where_it_leaves_no_room_for_a_prompt(self, service: Running) -> None:
        with pytest.raises(HunminError, match="no prompt would fit") as caught:
            await keep(service, write_file(rows(count=400), Manifest()))
        assert caught.value.code == ErrorCode.TOO_LARGE


async def test_a_file_may_be_larger_than_other_bodies(folder: Path) -> None:
    async with running(SERVICE, env=environment(folder) | {"HUNMIN_BODY_LIMIT_BYTES": "10000"}) as service:
        assert (await keep(service, write_file(rows(count=300), Manifest()))).size_bytes > 38_000


class TestServing:
    async def test_rows_first_without_a_template(self, service: Running, tokenizer: Tokenizer) -> None:
        await keep(service, write_file(rows(), Manifest()))
        ids = tokenizer.encode("이 영화는")
        answer = (3 + len(ids), expected([-1, -2, -3, *ids], rows()))
        for prompt in ("이 영화는", ids, {"prompt": "이 영화는"}):
            assert await generated(service, "review", prompt) == answer
        assert await generated(service, "one", "이 영화는") == (len(ids), expected(ids, rows()))
        assert answer[1] != expected(ids, rows())

    async def test_slots_of_a_template(self, service: Running, tokenizer: Tokenizer) -> None:
        await keep(service, write_file(rows(), Manifest()), template=TEMPLATE, slots=[1, 2])
        typed = "<|VIRTUAL_PROMPT_0|> {review} 좋아요"
        ids = encode_template(TEMPLATE, {"review": typed}, [1, 2], tokenizer)
        answer = (len(ids), expected(ids, rows()))
        assert await generated(service, "review@1", typed) == answer
        assert await generated(service, "review", {"review": typed}) == answer
        chat = encode_template(TEMPLATE, {"review": tokenizer.encode("질문: 가\n답변:")}, [1, 2], tokenizer)
        assert (await generated(service, "review", [Message(role="user", content="가")]))[1] == expected(chat, rows())

    async def test_a_prompt_that_does_not_fit_the_template_is_refused(self, service: Running) -> None:
        await keep(service, write_file(rows(), Manifest()), template=TEMPLATE, slots=[1, 2])
        await keep(service, write_file(rows(), Manifest()), "two", template="<|VIRTUAL_PROMPT_0|>{a}{b}")
        for name, prompt, said in [
            ("review", {"text": "가"}, "lacks 'review'"),
            ("two", "가", "'a', 'b'"),
            ("one", {"prompt": "가"}, "no template"),
        ]:
            with pytest.raises(HunminError, match=said) as caught:
                await generated(service, name, prompt)
            assert caught.value.status == 400

    async def test_newest_version_is_served_by_bare_name(self, service: Running) -> None:
        for seed in (1, 2):
            await keep(service, write_file(rows(seed), Manifest()))
        for name, seed in (("review", 2), ("review@1", 1), ("review@2", 2)):
            assert (await generated(service, name, [5, 6]))[1] == expected([-1, -2, -3, 5, 6], rows(seed))

    async def test_deleting_while_in_use_lets_the_request_end(self, service: Running) -> None:
        await keep(service, write_file(rows(), Manifest()))
        request = GenerateRequest(account_id=ACCOUNT, model="review", prompt=[5, 6], max_tokens=60)
        async with service.client("generation").stream(GENERATE, request) as events:
            await anext(events)
            await delete(service, "review")
            kinds = [event.root.type async for event in events]
        assert kinds[-1] == "usage"
        assert await metric(service, "s_resident") == 0
        with pytest.raises(HunminError, match="no model or soft prompt"):
            await generated(service, "review", [5, 6])

    async def test_a_model_that_was_replaced_is_not_served_in_its_place(self, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        save_tiny_checkpoint(other, "gpt2", vocab_size=VOCABULARY, context_length=400, seed=1)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (other / name).write_bytes((folder / name).read_bytes())
        async with fresh_database() as url:
            place = {"HUNMIN_HOME": str(tmp_path), "HUNMIN_DATABASE_URL": url}
            async with running(SERVICE, env=environment(folder) | place) as before:
                await keep(before, write_file(rows(), Manifest()))
                assert await generated(before, "review", [5, 6])
            async with running(SERVICE, env=environment(other) | place) as after:
                with pytest.raises(HunminError, match="was made for a checkpoint") as caught:
                    await generated(after, "review", [5, 6])
        assert caught.value.code == ErrorCode.CONFLICT

    async def test_two_hundred_registered_fifty_used_in_a_cache_of_ten(self, folder: Path) -> None:
        size = 3 * D_MODEL * 4
        order = [number for number in range(50) for _ in range(3)]
        random.Random(0).shuffle(order)  # noqa: S311  # no secret
        answers = {number: expected([-1, -2, -3, 5, 6, 7], rows(number)) for number in range(50)}
        assert len({tuple(answer) for answer in answers.values()}) > 40
        async with running(SERVICE, env=environment(folder, soft_prompt_bytes=10 * size)) as service:
            gate = asyncio.Semaphore(30)  # requests at once, three times as many as the cache has room for
            held: list[float] = []

            async def register(number: int) -> None:
                async with gate:
                    await keep(service, write_file(rows(number), Manifest()), f"number-{number}")

            async def use(number: int) -> None:
                async with gate:
                    assert (await generated(service, f"number-{number}", [5, 6, 7]))[1] == answers[number]
                    held.append(await metric(service, "_bytes"))

            await asyncio.gather(*map(register, range(200)))
            assert await metric(service, "s_resident") == 0
            await asyncio.gather(*map(use, order))
            assert max(held) <= 10 * size
            assert await metric(service, "s_resident") == 10
            assert 50 < await metric(service, "_loads_total") <= len(order)
            assert await metric(service, "_evictions_total") == await metric(service, "_loads_total") - 10

    async def test_memory_does_not_grow_with_what_was_used(self, folder: Path, tmp_path: Path) -> None:
        shape = {"hidden_size": 256, "num_hidden_layers": 1, "context_length": 400}
        save_tiny_checkpoint(tmp_path, "gpt2", vocab_size=VOCABULARY, **shape)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        size = 300 * 256 * 4
        limits = {"soft_prompt_bytes": 10 * size, "kv_bytes": 2**23}
        async with running(SERVICE, env=environment(tmp_path, **limits)) as service:
            client, gate = service.client("generation"), asyncio.Semaphore(30)

            async def use(number: int) -> None:
                name = f"number-{number}"
                async with gate:
                    request = ImportRequest(account_id=ACCOUNT, name=name, model="one")
                    file = write_file(torch.randn(300, 256) * 0.4, Manifest())
                    await client.upload(IMPORT, request, sent(file))
                    asked = GenerateRequest(account_id=ACCOUNT, model=name, prompt=[5], max_tokens=4)
                    async with client.stream(GENERATE, asked) as events:
                        assert [event.root.type async for event in events][-1] == "usage"

            await asyncio.gather(*map(use, range(30)))
            before = resident_bytes()
            await asyncio.gather(*map(use, range(30, 200)))
            grown = resident_bytes() - before
            assert await metric(service, "_loads_total") == 200
            assert await metric(service, "_bytes") == 10 * size
        assert grown < 120 * size, f"{grown / size:.0f} soft prompts, and 160 more than at first if all stayed"

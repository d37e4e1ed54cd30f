"""Every way to compute the same tiny checkpoint, for the contract suite of backends.

The native engine always; TGI as our own gateway speaks it; vLLM where TEST_VLLM_PYTHON names the interpreter of an
environment that has it (`make test-vllm`).
"""

import asyncio
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest
import pytest_asyncio
import torch
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.service import SERVICE as GATEWAY
from hunmin_generation.backends.language_model import LanguageModel
from hunmin_generation.backends.native import NativeModel
from hunmin_generation.backends.server import RemoteServer
from hunmin_generation.backends.tgi import TgiModel
from hunmin_generation.backends.vllm import VllmModel
from hunmin_generation.engine.engine import EngineLimits
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.testing import Running, running
from hunmin_text.artefact import load
from hunmin_text.tokenizer import Tokenizer
from hunmin_text.training import Method, train
from hunmin_tokenizer.service import SERVICE as TOKENIZER
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

KINDS = ("native", "tgi", "vllm")
CONTEXT = 400
VLLM_START_S = 400


@dataclass(frozen=True)
class Model:
    """The checkpoint: its folder, its tokenizer, and transformers' own idea of it."""

    folder: Path
    tokenizer: Tokenizer
    reference: PreTrainedModel
    context: int = CONTEXT


def save_model(folder: Path) -> Model:
    """Write a random Llama of a shape that vLLM's CPU attention takes (heads of 32), and read it back."""
    learnt = train(Method.BYTE, ["영화는 정말 재미있었습니다"] * 9, vocab_size=290)
    learnt.backend.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    reference.train(False)
    return Model(folder, tokenizer, reference)


@dataclass(frozen=True)
class Computer:
    """A backend, and how many requests it still computes."""

    kind: str
    backend: LanguageModel
    running: Callable[[], Awaitable[int]]


@asynccontextmanager
async def computer(kind: str, model: Model) -> AsyncIterator[Computer]:
    """Start a backend of that kind on `model`."""
    makers = {"native": _native, "tgi": _tgi, "vllm": _vllm}
    async with makers[kind](model) as made:
        made.backend.start()
        try:
            yield made
        finally:
            await made.backend.close()


@asynccontextmanager
async def _native(model: Model) -> AsyncIterator[Computer]:
    def fail(error: Exception) -> None:
        raise error

    backend = NativeModel(
        "tiny",
        model.folder,
        model.tokenizer,
        dtype=torch.float32,
        int8=False,
        limits=EngineLimits(),
        threads=1,
        max_queue=16,
        on_failure=fail,
        on_first_token=lambda seconds: None,
    )

    async def count() -> int:
        return len(backend.engine.scheduler.running)

    yield Computer("native", backend, count)


@asynccontextmanager
async def studio(model: Model) -> AsyncIterator[tuple[Running, str]]:
    """Run a studio that serves `model` as `tiny`, with a key."""
    key, models = new_key(), json.dumps({"tiny": str(model.folder)})
    environ = {
        "HUNMIN_GATEWAY_BOOTSTRAP_KEY": key,
        "HUNMIN_GENERATION_MODELS": models,
        "HUNMIN_TOKENIZER_MODELS": models,
        "HUNMIN_GENERATION_THREADS": "1",
    }
    async with running(GATEWAY, GENERATION, TOKENIZER, env=environ, network=True) as up:
        yield up, key


@asynccontextmanager
async def _tgi(model: Model) -> AsyncIterator[Computer]:
    async with studio(model) as (up, key):
        server = RemoteServer("tiny", f"{up.url('gateway')}/models/tiny", api_key=key)
        backend = TgiModel("tiny", model.folder, model.tokenizer, server, on_first_token=lambda seconds: None)

        async def count() -> int:
            page = (await up.http("generation").get("/metrics")).text
            return _gauge(page, 'vllm:num_requests_running{model_name="tiny"}')

        yield Computer("tgi", backend, count)


@asynccontextmanager
async def _vllm(model: Model) -> AsyncIterator[Computer]:
    python = os.environ.get("TEST_VLLM_PYTHON")
    if python is None:
        pytest.skip("needs a vLLM of its own: make test-vllm")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model.folder)),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--max-model-len", str(CONTEXT), "--max-logprobs", "20", "--generation-config", "vllm"),
        *("--enable-prompt-embeds", "--enforce-eager"),
    ]
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=log, stderr=log)
        try:
            await _until_healthy(url, process, log)
            server = RemoteServer("tiny", url, api_key=None)
            backend = VllmModel(
                "tiny", model.folder, model.tokenizer, server, served_as="tiny", on_first_token=lambda seconds: None
            )

            async def count() -> int:
                async with httpx.AsyncClient() as http:
                    page = (await http.get(f"{url}/metrics")).text
                return _gauge(page, "vllm:num_requests_running{")

            yield Computer("vllm", backend, count)
        finally:
            process.terminate()
            await process.wait()


async def _until_healthy(url: str, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
    deadline = time.monotonic() + VLLM_START_S
    async with httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"{url}/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if process.returncode is not None or time.monotonic() > deadline:
                log.seek(0)
                pytest.fail(f"vLLM did not start:\n{log.read().decode(errors='replace')[-3000:]}")
            await asyncio.sleep(1)


def _gauge(page: str, start: str) -> int:
    return int(float(next(line for line in page.splitlines() if line.startswith(start)).split()[-1]))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run all tests of backends: each is started once."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("backends"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The checkpoint that every backend computes."""
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def on(request: pytest.FixtureRequest, model: Model) -> AsyncIterator[Computer]:
    """Each backend in turn, started on `model`."""
    async with computer(request.param, model) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tgi_url(model: Model) -> AsyncIterator[tuple[str, str]]:
    """A TGI server's URL, and the key that it wants."""
    async with studio(model) as (up, key):
        yield f"{up.url('gateway')}/models/tiny", key

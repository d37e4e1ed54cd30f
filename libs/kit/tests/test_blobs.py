"""One suite for every blob store."""

import asyncio
import io
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_kit.blobs import Blobs, FolderBlobs, ObjectBlobs, open_blobs
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import running
from kit_sample import echo

CONTENT = b"\0safetensors\xff" * 1000


@pytest.fixture(params=["folder", "object", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    match request.param:
        case "folder":
            return open_blobs(None, home=tmp_path)
        case "object":
            return open_blobs(f"memory://bucket-{secrets.token_hex(4)}/prefix", home=tmp_path)
        case _:
            return open_blobs(_s3(monkeypatch), home=tmp_path)


def _s3(monkeypatch: pytest.MonkeyPatch) -> str:
    """Lead the driver to TEST_S3=http://KEY:SECRET@host:port/BUCKET; return a fresh place there."""
    if "TEST_S3" not in os.environ:
        pytest.skip("needs an S3 server: set TEST_S3=http://KEY:SECRET@host:port/BUCKET")
    server = urlsplit(os.environ["TEST_S3"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{server.scheme}://{server.hostname}:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(server.username))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(server.password))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return f"s3:/{server.path}/{secrets.token_hex(4)}"


async def test_what_is_put_is_there_until_it_is_deleted(blobs: Blobs) -> None:
    assert not await blobs.exists("soft-prompts/ab12")
    await blobs.put("soft-prompts/ab12", memoryview(CONTENT)[1:])
    assert await blobs.exists("soft-prompts/ab12")
    assert await blobs.get("soft-prompts/ab12") == CONTENT[1:]
    assert not await blobs.exists("soft-prompts")
    await blobs.delete("soft-prompts/ab12")
    assert not await blobs.exists("soft-prompts/ab12")
    await blobs.delete("soft-prompts/ab12")


async def test_a_file_is_put_and_read_by_pieces(blobs: Blobs, tmp_path: Path) -> None:
    content = CONTENT * 300  # several pieces
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        file.seek(7)
        await blobs.put_file("datasets/ab12/original", file)
    assert await blobs.get("datasets/ab12/original") == content[7:]
    async with blobs.open("datasets/ab12/original") as kept:
        assert (kept.read(5), kept.read()) == (content[7:12], content[12:])
        kept.seek(1)
        assert kept.readline() == content[8:].partition(b"\n")[0]
    await blobs.put("lines", b"first\nsecond\n\nlast")
    async with blobs.open("lines") as kept:
        assert [kept.readline(4) for _ in range(5)] == [b"firs", b"t\n", b"seco", b"nd\n", b"\n"]
        assert list(kept) == [b"last"]
    with pytest.raises(HunminError) as caught:
        async with blobs.open("datasets/other"):
            pass
    assert caught.value.code == ErrorCode.NOT_FOUND


@pytest.mark.parametrize("kind", ["folder", "object"])
async def test_a_file_that_cannot_be_read_to_its_end_leaves_what_was_there(kind: str, tmp_path: Path) -> None:
    # fsspec's memory has no halves: what is opened there is already kept.
    blobs = open_blobs(f"file://{tmp_path}" if kind == "object" else None, home=tmp_path)

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if piece := super().read(size):
                return piece
            raise OSError("the disk is gone")

    await blobs.put("a", b"first")
    with pytest.raises(OSError, match="gone"):
        await blobs.put_file("a", Broken(CONTENT * 300))
    assert await blobs.get("a") == b"first"


async def test_a_second_put_replaces_the_first(blobs: Blobs) -> None:
    await blobs.put("a", CONTENT)
    await blobs.put("a", b"")
    assert await blobs.get("a") == b""


async def test_what_is_not_there_is_not_found(blobs: Blobs) -> None:
    with pytest.raises(HunminError) as caught:
        await blobs.get("a/b")
    assert caught.value.code == ErrorCode.NOT_FOUND


async def test_a_reader_never_sees_half_a_put(blobs: Blobs) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    await blobs.put("a", contents[0])

    async def read() -> None:
        for _ in range(40):
            assert await blobs.get("a") in contents

    await asyncio.gather(read(), read(), *(blobs.put("a", content) for content in contents))


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "A", ".hidden", "a/.b", "가"])
async def test_a_key_stays_inside_the_store(blobs: Blobs, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        await blobs.put(key, b"")


def test_a_put_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        asyncio.run(FolderBlobs(tmp_path).put("a", "text"))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


async def test_a_platform_opens_the_store_that_is_set(tmp_path: Path) -> None:
    async with running(echo.SERVICE, env={"HUNMIN_HOME": str(tmp_path)}) as services:
        await services.platform("echo").blobs().put("a", b"1")
    assert (tmp_path / "blobs" / "a").read_bytes() == b"1"
    async with running(echo.SERVICE, env={"HUNMIN_BLOBS_URL": "memory://somewhere"}) as services:
        await services.platform("echo").blobs().put("a", b"2")
    assert await ObjectBlobs("memory://somewhere").get("a") == b"2"


@pytest.mark.parametrize("url", ["bucket/prefix", "nothing-known://bucket"])
async def test_a_url_that_leads_nowhere_stops_the_start(url: str) -> None:
    with pytest.raises(StartError, match="HUNMIN_BLOBS_URL"):
        async with running(echo.SERVICE, env={"HUNMIN_BLOBS_URL": url}) as services:
            services.platform("echo").blobs()

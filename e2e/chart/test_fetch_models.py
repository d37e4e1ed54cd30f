"""What brings models into a pod: the chart's own script, beside a server of files."""

import hashlib
import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from chart.rendering import CHART


@pytest.fixture
def script(tmp_path: Path) -> ModuleType:
    """The script, with a folder for /models."""
    spec = importlib.util.spec_from_file_location("fetch_models", CHART / "files" / "fetch_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path / "models"  # type: ignore[attr-defined]
    return module


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A URL, and the folder that it serves."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def run(
    script: ModuleType, url: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, minutes: str = "1"
) -> None:
    """Run it for one model."""
    models = json.dumps({"small": {"url": url, "files": files}})
    monkeypatch.setattr("sys.argv", ["fetch_models.py", models, minutes])
    script.main()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_files_are_brought_once(
    script: ModuleType, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run keeps them, whether or not their source is still there."""
    url, folder = source
    (folder / "config.json").write_bytes(b"{}")
    (folder / "sub" / "a.bin").write_bytes(b"weights")
    files = {"config.json": sha256(b"{}"), "sub/a.bin": sha256(b"weights")}
    run(script, url, files, monkeypatch)
    assert (script.ROOT / "small" / "sub" / "a.bin").read_bytes() == b"weights"
    (folder / "config.json").unlink()
    run(script, url, files, monkeypatch)
    assert capsys.readouterr().out.count("kept") == 2


def test_another_file_is_refused(script: ModuleType, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong hash ends it at once, and leaves nothing under the name."""
    url, folder = source
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(ValueError, match="and not"):
        run(script, url, {"config.json": sha256(b"{}")}, monkeypatch)
    assert list((script.ROOT / "small").iterdir()) == []


def test_a_spoiled_file_is_brought_anew(
    script: ModuleType, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the volume is checked as well."""
    url, folder = source
    (folder / "config.json").write_bytes(b"{}")
    (script.ROOT / "small").mkdir(parents=True)
    (script.ROOT / "small" / "config.json").write_bytes(b"spoiled")
    run(script, url, {"config.json": sha256(b"{}")}, monkeypatch)
    assert (script.ROOT / "small" / "config.json").read_bytes() == b"{}"


def test_a_missing_file_is_waited_for(
    script: ModuleType, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come later; without any time left it is an error."""
    url, folder = source
    monkeypatch.setattr(script.time, "sleep", lambda _: (folder / "config.json").write_bytes(b"{}"))
    with pytest.raises(FileNotFoundError):
        run(script, url, {"config.json": sha256(b"{}")}, monkeypatch, minutes="0")
    run(script, url, {"config.json": sha256(b"{}")}, monkeypatch)
    assert (script.ROOT / "small" / "config.json").is_file()

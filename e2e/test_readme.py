"""The first requests of README.md, run as they are written: only the address and the key are this studio's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ways import ONE_PROCESS

README = Path(__file__).resolve().parents[1] / "README.md"
ADDRESS = re.compile(r"http://(?:localhost|127\.0\.0\.1):8080")
SHOWN_KEY = re.compile(r"hm_[0-9A-Za-z_…]+")
EXPORT = re.compile(r"export (\w+)=hm_")
ATTEMPTS = 3  # a completion is drawn, and may be empty
LANGUAGES = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.parametrize("way", [ONE_PROCESS.name], indirect=True)
def test_its_requests_work_as_written(studio):
    requests = [(kind, code) for kind, code in _blocks(README.read_text(encoding="utf-8")) if _is_request(code)]
    assert {kind for kind, _ in requests} == {"bash", "python"}
    exported = {name: studio.key for _, code in requests for name in EXPORT.findall(code)}
    for kind, code in requests:
        ours = SHOWN_KEY.sub(studio.key, ADDRESS.sub(studio.url, code))
        environ = os.environ | exported | {"PYTHONUTF8": "1"}
        for _ in range(ATTEMPTS):
            done = subprocess.run([*LANGUAGES[kind], ours], env=environ, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert '"error"' not in done.stdout, done.stdout
            if done.stdout.strip():
                break
        else:
            pytest.fail(f"says nothing: {code}")


def _blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _is_request(code: str) -> bool:
    return bool(ADDRESS.search(code)) and any(word in code for word in ("curl ", "openai", "hunmin.Client"))

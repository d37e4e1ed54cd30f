"""The client library's example, as a developer runs it: train without the weights, upload, call by name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from studio_process import REPOSITORY
from ways import ONE_PROCESS

EXAMPLE = REPOSITORY / "libs" / "client" / "examples" / "sentiment.py"
REVIEWS = {
    1: ("정말 재미있게 봤다", "감동적인 영화", "배우들의 연기가 훌륭하다"),
    0: ("시간이 아깝다", "지루하고 뻔하다", "돈 아까운 영화"),
}
ENDINGS = ("", "!", " ㅎㅎ", "...", " 그리고 길다")
FEW = "--train 24 --test 6 --epochs 4 --batch 24"
# Gradients are computed with what a machine has left over, which is little while it is busy.
TIMEOUT_S = 300


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("way", [ONE_PROCESS.name], indirect=True)
def test_its_example_learns_and_serves_what_it_learnt(studio, tmp_path: Path):
    path = tmp_path / "ratings.txt"
    lines = [f"0\t{text}{end}\t{label}\n" for label, texts in REVIEWS.items() for text in texts for end in ENDINGS]
    path.write_text("id\tdocument\tlabel\n" + "".join(lines), encoding="utf-8")
    environ = os.environ | {"HUNMIN_API_KEY": studio.key, "HUNMIN_BASE_URL": studio.url, "PYTHONUTF8": "1"}
    command = [sys.executable, str(EXAMPLE), str(path), *FEW.split()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert losses[-1] < losses[0] / 2
    assert "by the soft prompt sentiment@1" in done.stdout
    assert "배우들의 연기가 훌륭했다 → 최" in done.stdout

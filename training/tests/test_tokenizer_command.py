"""`hunmin-train tokenizer` trains on what it may, and says what it read."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest
from hunmin_text.artefact import load
from hunmin_training import tokenizer
from hunmin_training.corpus import is_held_out

REVIEWS = [f"영화 {number}편을 보았는데 정말 재미있었습니다" for number in range(400)]
TESTED = "이 영화는 시험에 나온다"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with reviews (some twice, one from the test set), chat pairs and a test set."""
    lines = [*REVIEWS, *REVIEWS[:50], TESTED, "", "  "]
    (tmp_path / "reviews.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chat = f"Q,A,label\n뭐해?,영화 봐요.,0\n{TESTED},그렇군요.,0\n"
    (tmp_path / "chat.csv").write_text(chat, encoding="utf-8")
    (tmp_path / "test.txt").write_text(f"id\tdocument\tlabel\n1\t{TESTED}\t1\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> Path:
    """Run the command on the folder's files."""
    parser = argparse.ArgumentParser()
    tokenizer.add_arguments(parser)
    files = [str(folder / "reviews.txt"), str(folder / "chat.csv"), "--exclude", str(folder / "test.txt")]
    tokenizer.run(parser.parse_args([*files, "--vocab-size", "300", "--out", str(folder / "out"), *arguments]))
    return folder / "out"


@pytest.mark.parametrize("method", ["morpheme", "byte", "character"])
def test_the_folder_that_it_writes_loads(files: Path, method: str) -> None:
    loaded = load(run(files, "--method", method))
    assert loaded.method == method
    assert loaded.decode(loaded.encode("영화 3편을")) == "영화 3편을"


def test_it_reads_every_allowed_text_once(files: Path) -> None:
    manifest = json.loads((run(files) / "hunmin_tokenizer.json").read_text(encoding="utf-8"))
    allowed = [review for review in REVIEWS if not is_held_out(review)]
    assert 0 < len(allowed) < len(REVIEWS)
    read = "".join(f"{text}\n" for text in [*allowed, "질문: 뭐해?\n답변: 영화 봐요."])
    assert manifest["training_data"] == {
        "description": "reviews.txt, chat.csv",
        "lines": read.count("\n"),
        "sha256": hashlib.sha256(read.encode()).hexdigest(),
    }


def test_the_limit_stops_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(files, "--limit-lines", "7")
    assert "read 7 texts in all" in capsys.readouterr().err

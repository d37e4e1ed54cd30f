"""The round trip over every line of real Korean text that this machine has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hunmin_text.tokenizer import Tokenizer


def lines(folder: Path) -> Iterator[str]:
    """Yield every line of every text file, its line feed included."""
    for path in sorted(folder.glob("*.txt")):
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from file


@pytest.mark.timeout(900)
def test_every_line_comes_back(starter: Tokenizer, data: Path) -> None:
    tried = 0
    for line in lines(data / "text"):
        assert starter.decode(starter.encode(line)) == line
        tried += 1
    assert tried > 0

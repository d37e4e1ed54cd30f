"""Tells what a file is before it is read: its format, its encoding, and that it is text all through, line by line.

It holds a chunk at a time. It knows no rows.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from hunmin_contracts.datasets import DatasetFormat, TextEncoding
from hunmin_contracts.errors import HunminError

from hunmin_tuning.datasets.bounds import Bounds, refused

CHUNK_BYTES = 2**18
_HEAD_BYTES = 2**16
_FAR_MORE = 4  # times as many NULs in one half of the bytes, as UTF-16 has
_CODECS: dict[TextEncoding, str] = {
    "utf-8": "utf-8",
    "utf-8-bom": "utf-8",
    "cp949": "cp949",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
}
_BOMS: dict[bytes, TextEncoding] = {
    codecs.BOM_UTF8: "utf-8-bom",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_ENDINGS: dict[str, DatasetFormat] = {
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
}
_PARQUET = b"PAR1"
_HANGUL = re.compile("[가-힣]")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as Excel workbooks (.xlsx) are. Save the sheet as CSV UTF-8, or unpack the archive",
    b"PK\x05\x06": "an empty zip archive. Send the file itself",
    b"\xd0\xcf\x11\xe0": "an old Office or Hangul document. Save its table as CSV UTF-8",
    b"\x1f\x8b": "compressed with gzip. Decompress it, or send Parquet, which is compressed inside",
    b"\x28\xb5\x2f\xfd": "compressed with zstd. Decompress it, or send Parquet, which is compressed inside",
    b"BZh": "compressed with bzip2. Decompress it, or send Parquet, which is compressed inside",
    b"\xfd7zXZ": "compressed with xz. Decompress it, or send Parquet, which is compressed inside",
    b"7z\xbc\xaf": "a 7z archive. Unpack it",
    b"%PDF": "a PDF. Send the table as CSV UTF-8",
    b"SQLite format 3": "an SQLite database. Export the table as CSV",
}


@dataclass(frozen=True)
class Source:
    """A file that can be read: what its bytes are."""

    format: DatasetFormat
    encoding: TextEncoding

    def lines(self, file: BinaryIO, bounds: Bounds) -> Iterator[str]:
        """Yield the lines of a file that `inspect` has seen, with their ends, as they are."""
        file.seek(len(_bom(file)))
        text = io.TextIOWrapper(file, _CODECS[self.encoding], newline="")
        try:
            while line := text.readline(bounds.line_characters + 2):
                yield line
        finally:
            if not file.closed:
                text.detach()  # or it would close the file


def inspect(
    file: BinaryIO, bounds: Bounds, *, filename: str | None = None, format: DatasetFormat | None = None
) -> Source:
    """Return what a file is, by `format`, else its name, else its content.

    `invalid_request` where it is none of the formats, or not text: with its line and column.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head.strip(b"\0 \r\n\t\xef\xbb\xbf\xff\xfe"):
        raise refused("The file is empty. Send one with a line of column names, and rows below it.", line=1)
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise refused(f"the file is {what}.", line=1)
    named = format or _ENDINGS.get((filename or "").rpartition(".")[2].lower())
    is_parquet = head.startswith(_PARQUET)
    if named not in (None, "parquet") and is_parquet:
        raise refused(f"the file is Parquet, and its name says {named}. Correct the name.", line=1)
    if named == "parquet" and not is_parquet:
        wanted = "the file's name says Parquet, and it does not begin as such a file. Correct the name, or the file."
        raise refused(wanted, line=1)
    if is_parquet:
        return Source("parquet", "utf-8")
    encoding = _encoding(file, head, bounds)
    _scan(file, encoding, bounds)
    first = next(iter(Source("csv", encoding).lines(file, bounds)))
    if first.lstrip().startswith("[") and named in (None, "jsonl"):
        raise refused("The file is one JSON list. Write an object a line instead (JSON Lines).", line=1, column=1)
    return Source(named or _sniffed(first), encoding)


def _sniffed(first: str) -> DatasetFormat:
    if first.lstrip().startswith("{"):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return "csv" if "," in first.partition('"')[0] else "jsonl"
        return "jsonl"
    return "tsv" if "\t" in first else "csv"


def _bom(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(3)
    return next((bom for bom in _BOMS if head.startswith(bom)), b"")


def _encoding(file: BinaryIO, head: bytes, bounds: Bounds) -> TextEncoding:
    if bom := _bom(file):
        return _BOMS[bom]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even + odd and (even + odd > len(head) // 8 or not _is_utf_8(head)):
        # Line ends tell: swapped, they are no letters, where those of some Hangul, such as U+AC00, are NULs too.
        little, big = _line_ends(head, "utf-16-le"), _line_ends(head, "utf-16-be")
        if little > big or (little == big and odd > _FAR_MORE * even):
            return "utf-16-le"
        if big > little or even > _FAR_MORE * odd:
            return "utf-16-be"
    utf_8 = _Progress(file, "utf-8", bounds)
    # CP949's bytes are hardly ever read as Hangul in UTF-8: where there is some, the file is UTF-8 with a fault in it.
    if utf_8.is_whole or utf_8.has_hangul:
        return "utf-8"
    cp949 = _Progress(file, "cp949", bounds)
    return "cp949" if cp949.is_whole or cp949.bytes > utf_8.bytes else "utf-8"


def _line_ends(head: bytes, codec: str) -> int:
    text = head.decode(codec, "ignore")
    return text.count("\n") + text.count("\r")


def _is_utf_8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)  # its last letter may be cut
    except UnicodeDecodeError:
        return False
    return True


class _Progress:
    """How far a file can be decoded; up to a line that is too long at any rate."""

    def __init__(self, file: BinaryIO, codec: str, bounds: Bounds) -> None:
        decoder = codecs.getincrementaldecoder(codec)("strict")
        self.bytes = 0
        self.has_hangul = False
        self.is_whole = False
        line_bytes = 0
        file.seek(0)
        try:
            while (chunk := file.read(CHUNK_BYTES)) and line_bytes <= 4 * bounds.line_characters:
                self._look(decoder.decode(chunk))
                self.bytes += len(chunk)
                line_bytes = 0 if b"\n" in chunk or b"\r" in chunk else line_bytes + len(chunk)
            if not chunk:
                decoder.decode(b"", final=True)
            self.is_whole = True
        except UnicodeDecodeError as error:
            self._look(error.object[: error.start].decode(codec, "ignore"))
            self.bytes += error.start

    def _look(self, text: str) -> None:
        self.has_hangul = self.has_hangul or _HANGUL.search(text) is not None


def _scan(file: BinaryIO, encoding: TextEncoding, bounds: Bounds) -> None:
    """Raise where the file is not text, or a line is too long."""
    codec = _CODECS[encoding]
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(codec)("strict"), translate=True)
    place = _Place(bounds)
    file.seek(len(_bom(file)))
    while True:
        chunk = file.read(CHUNK_BYTES)
        try:
            place.pass_over(decoder.decode(chunk, final=not chunk))
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode(codec).replace("\r\n", "\n").replace("\r", "\n")
            place.pass_over(good)
            raise place.refused(
                f"the bytes {error.object[error.start : error.start + 4].hex(' ')} are not {encoding.upper()}, as the "
                "text before them is. Save the file as UTF-8."
            ) from None
        if not chunk:
            return


class _Place:
    """Where one is in a text, its line feeds translated."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._line = 1
        self._column = 1

    def pass_over(self, text: str) -> None:
        if "\0" in text:
            self._advance(text[: text.index("\0")])
            raise self.refused("the character U+0000 is no text. Remove it, or save the file as UTF-8.")
        self._advance(text)

    def refused(self, message: str) -> HunminError:
        return refused(message, line=self._line, column=self._column)

    def _advance(self, text: str) -> None:
        # Chunks are shorter than the longest line: only what goes over their edges can be too long.
        end = text.find("\n")
        if self._column + (len(text) if end < 0 else end) > self._bounds.line_characters + 1:
            raise refused(
                f"the line is longer than {self._bounds.line_characters:,} characters. Shorten its texts, or look for "
                "line ends that are missing.",
                line=self._line,
                column=self._bounds.line_characters + 1,
            )
        self._line += text.count("\n")
        self._column = self._column + len(text) if end < 0 else len(text) - text.rfind("\n")

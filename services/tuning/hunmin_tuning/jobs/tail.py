"""Reads a file that grows, line by line, and notices when it was written anew. It does not know what it reads."""

from pathlib import Path

_MAX_BYTES = 2**20  # at a time
_MAX_LINE_BYTES = 2**14  # then it is cut


class Tail:
    """The whole lines of a file behind a byte. A file that is not there is an empty one."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset  # what lies before was returned
        self._last = b""  # of that, the end

    def read(self, *, is_final: bool = False) -> list[str]:
        """Return the lines that came since; those of the whole file if it is another by now.

        At most a megabyte at a time: read until nothing comes. With `is_final` what has no line feed is a line too.
        """
        try:
            with self._path.open("rb") as file:
                start = self.offset - len(self._last)
                file.seek(start)
                content = file.read(len(self._last) + _MAX_BYTES)
                if not content.startswith(self._last):
                    self.offset, self._last = 0, b""
                    file.seek(0)
                    content = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return []
        content = content[len(self._last) :]
        end = content.rfind(b"\n") + 1
        if is_final or len(content) - end > _MAX_LINE_BYTES:
            end = len(content)
        content = content[:end]
        self.offset += end
        self._last = (self._last + content)[-_MAX_LINE_BYTES:] if content else self._last
        return [line.decode(errors="replace") for line in content.splitlines()]

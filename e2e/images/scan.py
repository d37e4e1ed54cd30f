"""`make scan-images`: read the file system of each service's image, as it is run, and check it (checks.py)."""

import os
import stat
import sys
import tarfile
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.build import chosen, image_name
from images.builder import Builder, find_builder
from images.checks import CHECKS, SBOM, Entry, Image

_CONTENT_BYTES = 512 * 1024  # secrets are in small files
_TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR}


def entries_of_stream(stream: IO[bytes]) -> dict[str, Entry]:
    """Read a file system that comes in tar's format."""
    entries: dict[str, Entry] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = "/" + member.name.removeprefix(".").strip("/")
            if member.islnk():
                entries[path] = entries["/" + member.linkname.removeprefix(".").strip("/")]
                continue
            file = archive.extractfile(member) if member.isreg() and _is_read(path, member.size) else None
            kind = _TYPES.get(member.type, stat.S_IFREG)
            content = file.read() if file else None
            entries[path] = Entry(kind | member.mode, member.uid, member.gid, member.size, content)
    return entries


def entries_of_folder(folder: Path) -> dict[str, Entry]:
    """Read a file system that lies in a folder."""
    entries: dict[str, Entry] = {}
    for path in folder.rglob("*"):
        found, name = path.lstat(), "/" + str(path.relative_to(folder))
        is_read = stat.S_ISREG(found.st_mode) and _is_read(name, found.st_size)
        content = path.read_bytes() if is_read else None
        entries[name] = Entry(found.st_mode, found.st_uid, found.st_gid, found.st_size, content)
    return entries


def _is_read(path: str, size: int) -> bool:
    return path == SBOM or size <= _CONTENT_BYTES


def read_image(builder: Builder, service: str) -> Image:
    """Read the image of a service."""
    name = image_name(service)
    with builder.files(name) as stream:
        entries = entries_of_stream(stream)
        while stream.read(1 << 20):  # the rest of the last block, lest the writer find nobody there
            pass
    return Image(service, entries, builder.config(name), builder.size(name))


def faults(image: Image) -> list[str]:
    """Return what every check says."""
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(image)]


def main() -> None:
    """Scan them; exit with 1 if one has a fault."""
    builder, bad = find_builder(), False
    for service in chosen():
        image = read_image(builder, service)
        found = faults(image)
        bad = bad or bool(found)
        print(
            f"{image_name(service)}: {len(image.entries):,} paths, {len(CHECKS)} checks, {len(found)} faults",
            flush=True,
        )
        print("".join(f"  {fault}{os.linesep}" for fault in found), end="")
    sys.exit(bad)


if __name__ == "__main__":
    main()

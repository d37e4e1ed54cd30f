"""Brings models into /models: `fetch_models.py '{"NAME": {"url": FOLDER, "files": {PATH: SHA256}}}' MINUTES`.

A file whose hash is right stays; one that is missing or wrong is fetched, and takes its name only once its hash is
right, so that several pods may do this on one volume. `url` is what fsspec reads: https://…, s3://bucket/….
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import fsspec

PIECE_BYTES = 2**22
ROOT = Path("/models")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, path: Path, wanted: str) -> None:
    """Bring one file; ValueError if it is not the one that is wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.environ.get('HOSTNAME', 'here')}")
    found = hashlib.sha256()
    try:
        with fsspec.open(url, "rb") as source, unfinished.open("wb") as file:
            while piece := source.read(PIECE_BYTES):
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != wanted:
            raise ValueError(f"{url} has the SHA-256 {found.hexdigest()}, and not {wanted}")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def fetch_patiently(url: str, path: Path, wanted: str, until: float) -> None:
    """Bring one file; what cannot be read is tried again until `until`, and what is wrong is not."""
    wait_s = 2.0
    while True:
        try:
            return fetch(url, path, wanted)
        except ValueError:
            raise
        except Exception as error:
            if time.monotonic() + wait_s > until:
                raise
            print(f"{url}: {error}; again in {wait_s:.0f} s", flush=True)
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, 60)


def main() -> None:
    """Bring all of them, or exit with the reason."""
    until = time.monotonic() + 60 * float(sys.argv[2])
    for name, model in json.loads(sys.argv[1]).items():
        for file, wanted in model["files"].items():
            path = ROOT / name / file
            if path.is_file() and digest(path) == wanted:
                print(f"kept {path}", flush=True)
                continue
            fetch_patiently(f"{model['url'].rstrip('/')}/{file}", path, wanted, until)
            print(f"fetched {path}", flush=True)


if __name__ == "__main__":
    main()

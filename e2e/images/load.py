"""Take images to a cluster's nodes, one at a time: `python e2e/images/load.py IMAGE…`, by CLUSTER_TOOL or by kind.

CLUSTER_TOOL is a command that takes an archive there (`CLUSTER_TOOL load FILE`); KIND_CLUSTER names kind's (hunmin).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.builder import Builder, find_builder


def load(builder: Builder, name: str) -> None:
    """Take one there; its archive is gone before the next one comes, since it may be large."""
    with tempfile.TemporaryDirectory(prefix="hunmin-image-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:  # noqa: S108
        archive = Path(folder) / "image.tar"
        print(f"images: loading {name}", flush=True)
        builder.save(name, archive)
        subprocess.run([*_command(), str(archive)], check=True)


def _command() -> list[str]:
    if tool := os.environ.get("CLUSTER_TOOL"):
        return [tool, "load"]
    if shutil.which("kind"):
        return ["kind", "load", "image-archive", "--name", os.environ.get("KIND_CLUSTER", "hunmin")]
    raise SystemExit("images: set CLUSTER_TOOL to a command that takes an archive to the nodes, or install kind")


def main() -> None:
    """Load what is named."""
    builder = find_builder()
    for name in sys.argv[1:]:
        load(builder, name)


if __name__ == "__main__":
    main()

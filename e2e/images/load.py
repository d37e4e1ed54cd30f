"""Take images to a cluster's nodes, one at a time: `python e2e/images/load.py IMAGE…`. cluster.sh knows how."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.builder import Builder, find_builder

_CLUSTER = Path(__file__).resolve().parents[1] / "cluster" / "cluster.sh"


def load(builder: Builder, name: str) -> None:
    """Take one there; its archive is gone before the next one comes, since it may be large."""
    with tempfile.TemporaryDirectory(prefix="hunmin-image-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:  # noqa: S108
        archive = Path(folder) / "image.tar"
        print(f"images: loading {name}", flush=True)
        builder.save(name, archive)
        subprocess.run([str(_CLUSTER), "load", str(archive)], check=True)


def main() -> None:
    """Load what is named."""
    builder = find_builder()
    for name in sys.argv[1:]:
        load(builder, name)


if __name__ == "__main__":
    main()

"""`make images`: build the image of each service, and say what each layer takes and which images share it.

TAG is their tag (the workspace's version), IMAGES what stands before a service's name, SERVICES which to build.
"""

import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.builder import REPOSITORY, Builder, find_builder

SERVICES = ("gateway", "tokenizer", "generation", "tuning")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def image_name(service: str) -> str:
    """Return the image's whole name, as the chart names it."""
    tag = os.environ.get("TAG") or PYPROJECT["project"]["version"]
    return f"{os.environ.get('IMAGES') or 'localhost/hunmin-'}{service}:{tag}"


def chosen() -> list[str]:
    """Return the services to build."""
    return (os.environ.get("SERVICES") or " ".join(SERVICES)).split()


def build(builder: Builder, service: str) -> None:
    """Build one; what its layers share with another's comes from the builder's cache."""
    arguments = {"PACKAGE": f"hunmin-{service}", "VERSION": PYPROJECT["project"]["version"], "REVISION": _revision()}
    print(f"images: building {image_name(service)} by {builder.tool}", flush=True)
    builder.build(image_name(service), arguments)


def report(builder: Builder, services: list[str]) -> str:
    """Return a line for each image and each of its layers."""
    layers = {service: builder.layers(image_name(service)) for service in services}
    uses = Counter(layer.digest for found in layers.values() for layer in found)
    lines = []
    for service, found in layers.items():
        lines.append(f"{image_name(service)}: {builder.size(image_name(service)) / 1e6:,.1f} MB")
        for layer in found:
            size = "?" if layer.size is None else f"{layer.size / 1e6:,.1f}"
            shared = f"  in {uses[layer.digest]} of these images" if uses[layer.digest] > 1 else ""
            lines.append(f"  {size:>9} MB  {layer.digest.removeprefix('sha256:')[:12]}{shared}")
    return "\n".join(lines)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Build them one after another."""
    builder = find_builder()
    for service in chosen():
        build(builder, service)
    print(report(builder, chosen()))


if __name__ == "__main__":
    main()

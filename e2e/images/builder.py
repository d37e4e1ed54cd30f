"""Images by whatever is there: docker if its daemon answers, else podman, else buildah. IMAGE_TOOL names one."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parents[2]
_BASE = "docker.io/library/python:3.11-slim"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # where the base image has them


@dataclass(frozen=True)
class Layer:
    """What one layer holds is told by its digest: images that share it ship it once."""

    digest: str
    size: int | None  # None where the tool does not tell


class Builder:
    """docker, and podman, which takes the same commands."""

    def __init__(self, tool: str) -> None:
        self.tool = tool

    def build(self, name: str, arguments: Mapping[str, str]) -> None:
        """Build the Dockerfile. BUILD_OPTIONS are the machine's own, such as another index of packages."""
        options = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        own = shlex.split(os.environ.get("BUILD_OPTIONS", ""))
        self._run(*self._building(), *own, *options, "--tag", name, ".")

    def _building(self) -> list[str]:
        return ["build"]

    def has(self, name: str) -> bool:
        """Tell whether an image of that name is there."""
        command = [self.tool, "inspect", "--type", "image", name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def save(self, name: str, archive: Path) -> None:
        """Write the archive that `docker load` reads."""
        self._run("save", "--output", str(archive), name)

    def config(self, name: str) -> dict[str, Any]:
        """Return User, Env, Labels and the like."""
        return dict(self._inspect(name)["Config"])

    def layers(self, name: str) -> list[Layer]:
        """Return its layers, the base image's first."""
        digests = self._inspect(name)["RootFS"]["Layers"]
        history = self._output("history", "--human=false", "--format", "{{.Size}}", name).split()
        sizes = [int(size) for size in reversed(history) if size.isdigit() and int(size)]
        known: list[Any] = sizes if len(sizes) == len(digests) else [None] * len(digests)
        return [Layer(*pair) for pair in zip(digests, known, strict=True)]

    def size(self, name: str) -> int:
        """Return the bytes of all layers, unpacked."""
        return int(self._inspect(name)["Size"])

    @contextmanager
    def files(self, name: str) -> Generator[IO[bytes]]:
        """Yield the image's file system as a stream in tar's format."""
        container = self._output("create", name).strip()
        try:
            with self._stream([self.tool, "export", container]) as stream:
                yield stream
        finally:
            self._output("rm", container)

    def _inspect(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self._output("inspect", "--type", "image", name))[0])

    def _run(self, *arguments: str) -> None:
        subprocess.run([self.tool, *arguments], check=True, cwd=REPOSITORY)

    def _output(self, *arguments: str) -> str:
        return subprocess.run([self.tool, *arguments], check=True, capture_output=True, text=True).stdout

    @contextmanager
    def _stream(self, command: list[str]) -> Generator[IO[bytes]]:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}")


class Buildah(Builder):
    """buildah alone, as on a machine without a container engine."""

    def _building(self) -> list[str]:
        command = [
            "bud",
            "--layers",
            "--isolation",
            "chroot",
            "--network",
            "host",
        ]  # no engine is asked to run anything
        if self.has(_BASE):
            command.append("--pull-never")
        if certificates := os.environ.get("SSL_CERT_FILE"):  # packages come through a server of the company's own
            command += ["--volume", f"{certificates}:{_CERTIFICATES}:ro", "--build-arg", f"PIP_CERT={_CERTIFICATES}"]
        return command

    def save(self, name: str, archive: Path) -> None:
        """As above."""
        self._run("push", "--quiet", name, f"docker-archive:{archive}:{name}")

    def config(self, name: str) -> dict[str, Any]:
        """As above."""
        return dict(self._inspect(name)["Docker"]["config"])

    def layers(self, name: str) -> list[Layer]:
        """As above."""
        image = self._inspect(name)
        sizes = [layer["size"] for layer in json.loads(image["Manifest"])["layers"]]
        return [Layer(*pair) for pair in zip(image["OCIv1"]["rootfs"]["diff_ids"], sizes, strict=True)]

    def size(self, name: str) -> int:
        """As above."""
        return sum(layer.size or 0 for layer in self.layers(name))

    @contextmanager
    def files(self, name: str) -> Generator[IO[bytes]]:
        """As above."""
        container = self._output("from", "--pull-never", name).strip()
        try:
            folder = self._output("mount", container).strip()
            with self._stream(["tar", "--directory", folder, "--create", "."]) as stream:
                yield stream
        finally:
            self._output("rm", container)

    def _inspect(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self._output("inspect", "--type", "image", name)))


def find_builder() -> Builder:
    """Return the first that works."""
    wanted = os.environ.get("IMAGE_TOOL")
    for tool in [wanted] if wanted else ["docker", "podman", "buildah"]:
        # docker's client alone builds nothing: `info` asks its daemon.
        if shutil.which(tool) and subprocess.run([tool, "info"], capture_output=True, check=False).returncode == 0:
            return Buildah(tool) if tool == "buildah" else Builder(tool)
    raise SystemExit(f"images: {wanted or 'docker, podman or buildah'} must be there, and answer")

"""Each check of the scan, on a folder that is a sound image but for one thing."""

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images.checks import CHECKS, HOME, SBOM, SIZES_MB, USER, Image
from images.scan import entries_of_folder, entries_of_stream, faults

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files that belong to others")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a sound file system."""
    folder = tmp_path / "root"
    bom = {"bomFormat": "CycloneDX", "components": [{"name": "hunmin-gateway"}, {"name": "Jinja2"}]}
    write(folder, "/etc/passwd", f"root:x:0:0::/root:/bin/sh\nhunmin:x:{USER}:{USER}::{HOME}:/usr/sbin/nologin\n")
    write(folder, SBOM, json.dumps(bom))
    write(folder, "/app/lib/python3.11/site-packages/jinja2-3.1.6.dist-info/METADATA", "Name: Jinja2\n")
    write(folder, "/usr/bin/cat", "\x7fELF", mode=0o755)
    own(folder, HOME)
    make(folder, "/tmp", mode=0o1777)  # noqa: S108
    return folder


def write(root: Path, path: str, text: str = "", *, mode: int = 0o644, size: int | None = None) -> None:
    """Write a file; `size` makes it as large, with a hole."""
    file = root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if size is not None:
        os.truncate(file, size)
    file.chmod(mode)


def make(root: Path, path: str, *, mode: int = 0o755) -> None:
    """Make a folder."""
    (root / path[1:]).mkdir(parents=True, exist_ok=True)
    (root / path[1:]).chmod(mode)


def own(root: Path, path: str, user: int = USER, group: int = USER) -> None:
    """Make a folder that belongs to the user."""
    make(root, path)
    os.chown(root / path[1:], user, group)


def image_of(root: Path, **changes: object) -> Image:
    """Return the image that holds it."""
    labels = {
        f"org.opencontainers.image.{name}": "x" for name in ("title", "description", "version", "revision", "licenses")
    }
    config = {"User": f"{USER}:{USER}", "Env": ["PATH=/app/bin", "GPG_KEY=0D96"], "Labels": labels}
    return dataclasses.replace(Image("gateway", entries_of_folder(root), config, 1), **changes)


def failed(image: Image) -> set[str]:
    """Return the names of the checks that found something."""
    return {fault.partition(":")[0] for fault in faults(image)}


KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA" * 4

BROKEN: dict[str, list[Callable[[Path], object]]] = {
    "runs_as_user": [lambda root: write(root, "/etc/passwd", "root:x:0:0::/root:/bin/sh\n")],
    "has_no_compiler": [
        lambda root: write(root, "/usr/bin/gcc", mode=0o755),
        lambda root: write(root, "/usr/bin/x86_64-linux-gnu-gcc-12", mode=0o755),
        lambda root: write(root, "/app/lib/python3.11/site-packages/triton/backends/nvidia/bin/ptxas", mode=0o755),
        lambda root: (root / "usr/bin/cc").symlink_to("/etc/alternatives/cc"),
    ],
    "is_writable_at_home_alone": [
        lambda root: make(root, "/var/tmp", mode=0o1777),  # noqa: S108
        lambda root: make(root, "/tmp", mode=0o777),  # noqa: S108
        lambda root: write(root, "/app/.lock", mode=0o666),
        lambda root: own(root, "/app"),
        lambda root: (own(root, "/srv", user=0), (root / "srv").chmod(0o775)),
        lambda root: own(root, HOME, user=0),
    ],
    "gives_no_rights": [
        lambda root: write(root, "/usr/bin/su", mode=0o4755),
        lambda root: write(root, "/usr/bin/chage", mode=0o2755),
    ],
    "has_no_weights": [
        lambda root: write(root, "/models/model.safetensors", size=100_000),
        lambda root: write(root, "/app/code/x/pytorch_model-00001.bin", size=100_000),
    ],
    "has_no_secret": [
        lambda root: write(root, "/app/code/key.txt", KEY),
        lambda root: write(root, "/root/.netrc", "machine x"),
        lambda root: write(root, "/run/secrets/token", "x"),
        lambda root: write(root, "/etc/x.conf", "url = https://user:" + "dhWq81jKlm0Z@packages.example.com/simple"),
        lambda root: write(root, "/app/code/first", "hm" + "_" + "a1B2" * 8 + "_c3D4e5"),
    ],
    "tells_nothing_of_its_builder": [lambda root: write(root, "/etc/pip.conf")],
    "has_whole_sbom": [
        lambda root: (root / SBOM[1:]).unlink(),
        lambda root: write(root, SBOM, "{}"),
        lambda root: write(root, SBOM, '{"bomFormat": "CycloneDX", "components": [{"name": "jinja2"}]}'),
        lambda root: make(root, "/app/code/hunmin_kit-0.1.0.dist-info"),
    ],
    "is_small": [lambda root: make(root, "/app/lib/python3.11/site-packages/torch")],
}


def test_a_sound_image_has_no_fault(root: Path) -> None:
    assert faults(image_of(root)) == []


@pytest.mark.parametrize(
    ("check", "damage"), [(check, damage) for check, damages in BROKEN.items() for damage in damages]
)
def test_a_broken_file_system_fails_its_check_alone(root: Path, check: str, damage: Callable[[Path], object]) -> None:
    damage(root)
    assert failed(image_of(root)) == {check}


@pytest.mark.parametrize(
    ("check", "config"),
    [
        ("runs_as_user", {"User": "hunmin"}),
        ("runs_as_user", {"User": ""}),
        ("has_no_secret", {"Env": ["HUNMIN_GATEWAY_BOOTSTRAP_KEY=x"]}),
        ("tells_nothing_of_its_builder", {"Env": ["https_proxy=http://proxy:3128"]}),
        ("tells_nothing_of_its_builder", {"Env": ["SSL_CERT_FILE=/etc/ssl/ca.crt"]}),
        ("is_labelled", {"Labels": {"org.opencontainers.image.title": "hunmin-gateway"}}),
        ("is_labelled", {"Labels": None}),
    ],
)
def test_a_broken_configuration_fails_its_check_alone(root: Path, check: str, config: dict[str, object]) -> None:
    image = image_of(root)
    assert failed(dataclasses.replace(image, config={**image.config, **config})) == {check}


def test_an_image_over_its_bound_is_too_large(root: Path) -> None:
    assert failed(image_of(root, size=SIZES_MB["gateway"] * 1_000_000)) == {"is_small"}


def test_torch_is_welcome_where_tensors_are(root: Path) -> None:
    make(root, "/app/lib/python3.11/site-packages/torch")
    assert not failed(image_of(root, service="tuning")) - {"has_whole_sbom"}


def test_every_check_has_been_seen_to_fail() -> None:
    assert {check.__name__ for check in CHECKS} == {*BROKEN, "is_labelled"}


def test_a_stream_is_read_as_its_folder_is(root: Path) -> None:
    os.link(root / "usr/bin/cat", root / "usr/bin/tac")
    (root / "bin").symlink_to("usr/bin")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(root, ".")
    stream.seek(0)
    found = entries_of_stream(stream)
    del found["/"]
    assert {path: (entry.mode, entry.uid, entry.content) for path, entry in found.items()} == {
        path: (entry.mode, entry.uid, entry.content) for path, entry in entries_of_folder(root).items()
    }

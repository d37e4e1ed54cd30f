"""What no image of a service may hold, and what each must. A check yields a line for each fault of an `Image`."""

import json
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

USER = 10001
HOME = "/home/hunmin"
SBOM = "/app/sbom.cdx.json"


@dataclass(frozen=True)
class Entry:
    """A path of an image. `content` is there for small files alone."""

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    content: bytes | None = None


@dataclass(frozen=True)
class Image:
    """The image of `service` as it is run: its file system, and what its configuration says."""

    service: str
    entries: Mapping[str, Entry]
    config: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0

    def files(self) -> Iterator[tuple[str, Entry]]:
        """Yield every plain file."""
        return ((path, entry) for path, entry in self.entries.items() if stat.S_ISREG(entry.mode))


Check = Callable[[Image], Iterator[str]]

_MB = 1_000_000
SIZES_MB = {"gateway": 300, "tokenizer": 300, "generation": 6000, "tuning": 6000}

_COMPILERS = re.compile(
    r"(.+-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|tcc|gfortran|ld|ld\.(bfd|gold|lld)|as|nvcc|ptxas|nvlink|cicc|rustc|cargo|go|javac|make|ninja)"
    r"(-[\d.]+)?"
)
_WEIGHTS = re.compile(r".*\.(safetensors|gguf|ggml|pt|pth|ckpt|onnx|h5|msgpack|npz)|pytorch_model.*\.bin")
_WEIGHTS_BYTES = 64 * 1024  # smaller ones are path files of Python and samples of libraries

_SECRET_NAMES = re.compile(
    r"\.netrc|\.pypirc|\.pgpass|\.git-credentials|\.env|id_(rsa|dsa|ecdsa|ed25519)|.*\.(p12|pfx|kdbx)|kubeconfig"
)
_SECRET_PATHS = re.compile(r".*/(\.docker/config\.json|\.aws/credentials|\.kube/config|run/secrets/.+)")
_SECRET_TEXTS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"  # libraries hold the line without a key
    rb"|\bAKIA[0-9A-Z]{16}\b(?<!EXAMPLE)"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    rb"|\bhm_[A-Za-z0-9]{32}_[A-Za-z0-9]{6}\b"
    rb"|\bhf_[A-Za-z0-9]{34}\b"
    rb"|[a-z]+://[^/\s:@'\"{}$<>]+:(?!(?:pass|password|pw|secret|xxx+|\*+)@)[^/\s:@'\"{}$<>%()]{12,}@[a-z0-9.-]+\.[a-z]{2,}"
)
_LIBRARIES_TESTS = re.compile(r"/app/lib/.*/(tests?|testing_utils)(/.*|\..*)")  # hold keys that are published with them
_PACKAGE = re.compile(
    r"/app/(lib/python[\d.]+/site-packages|code)/[^/]+\.dist-info"
)  # what others hold within is theirs
_SECRET_VARIABLES = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|(?<!GPG)_KEY$")
_MACHINE_VARIABLES = re.compile(r"PROXY|INDEX_URL|_CERT|CA_BUNDLE", re.IGNORECASE)
_MACHINE_FILES = (
    "/etc/pip.conf",
    "/root/.config/pip/pip.conf",
    "/root/.pip/pip.conf",
    "/etc/uv/uv.toml",
    "/root/.npmrc",
)


def runs_as_user(image: Image) -> Iterator[str]:
    """It runs as a number, which Kubernetes can tell from root, and one that the system knows."""
    user = str(image.config.get("User", ""))
    if user.partition(":")[0] != str(USER):
        yield f"it runs as {user or 'root'}, not {USER}"
    passwd = (image.entries.get("/etc/passwd") or Entry(0)).content or b""
    if f":{USER}:{USER}:".encode() not in passwd:
        yield f"/etc/passwd does not name {USER}"


def has_no_compiler(image: Image) -> Iterator[str]:
    """No program that makes programs."""
    for path, entry in image.entries.items():
        runs = stat.S_ISLNK(entry.mode) or (stat.S_ISREG(entry.mode) and entry.mode & 0o111)
        if (
            runs
            and posixpath.basename(posixpath.dirname(path)) in ("bin", "sbin")
            and _COMPILERS.fullmatch(posixpath.basename(path))
        ):
            yield f"{path} is a compiler"


def is_writable_at_home_alone(image: Image) -> Iterator[str]:
    """What others own is not for everybody to write, but /tmp, which is mounted; the user owns its home alone."""
    for path, entry in image.entries.items():
        if stat.S_ISLNK(entry.mode) or path.startswith("/dev/"):
            continue
        at_home = path == HOME or path.startswith(f"{HOME}/")
        if entry.mode & stat.S_IWOTH and not (path == "/tmp" and entry.mode & stat.S_ISVTX):  # noqa: S108
            yield f"{path} may be written by everybody"
        elif entry.gid == USER and entry.mode & stat.S_IWGRP and not at_home:
            yield f"{path} may be written by the user's group"
        elif entry.uid == USER and not at_home:
            yield f"{path} belongs to the user"
    home = image.entries.get(HOME)
    if home is None or home.uid != USER:
        yield f"{HOME} does not belong to the user"


def gives_no_rights(image: Image) -> Iterator[str]:
    """No program that runs with more rights than its caller has."""
    for path, entry in image.files():
        if entry.mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"{path} is setuid or setgid"


def has_no_weights(image: Image) -> Iterator[str]:
    """Models come by volume, or are fetched."""
    for path, entry in image.files():
        if entry.size >= _WEIGHTS_BYTES and _WEIGHTS.fullmatch(posixpath.basename(path)):
            yield f"{path} looks like a model's weights"


def has_no_secret(image: Image) -> Iterator[str]:
    """Neither in files, by name or content, nor in variables."""
    for path, entry in image.files():
        if entry.size and (_SECRET_NAMES.fullmatch(posixpath.basename(path)) or _SECRET_PATHS.fullmatch(path)):
            yield f"{path} has a secret's name"
        elif entry.content and not _LIBRARIES_TESTS.fullmatch(path) and (found := _SECRET_TEXTS.search(entry.content)):
            yield f"{path} holds what looks like a secret: {found.group()[:12]!r}…"
    for name in _variables(image):
        if _SECRET_VARIABLES.search(name):
            yield f"the variable {name} looks like a secret"


def tells_nothing_of_its_builder(image: Image) -> Iterator[str]:
    """No proxy, package index or certificate of the machine that built it."""
    for path in _MACHINE_FILES:
        if path in image.entries:
            yield f"{path} comes from the machine that built it"
    for name in _variables(image):
        if _MACHINE_VARIABLES.search(name):
            yield f"the variable {name} comes from the machine that built it"


def has_whole_sbom(image: Image) -> Iterator[str]:
    """A CycloneDX list of every Python package that is there."""
    entry = image.entries.get(SBOM)
    try:
        bom = json.loads((entry.content if entry else None) or b"null")
        if bom["bomFormat"] != "CycloneDX":
            raise ValueError
        listed = {_normal(component["name"]) for component in bom["components"]}
    except (ValueError, TypeError, KeyError):
        yield f"{SBOM} is not there, or is no CycloneDX"
        return
    for path in image.entries:
        folder = posixpath.basename(path)
        if _PACKAGE.fullmatch(path) and _normal(folder.split("-")[0]) not in listed:
            yield f"{SBOM} lacks {folder.removesuffix('.dist-info')}"
    if f"hunmin-{image.service}" not in listed:
        yield f"{SBOM} lacks hunmin-{image.service}"


def is_small(image: Image) -> Iterator[str]:
    """At most what its service may take; torch only where tensors are."""
    most = SIZES_MB.get(image.service, 300)
    if image.size >= most * _MB:
        yield f"it takes {image.size / _MB:,.1f} MB, and may take {most} MB"
    light = most <= 300
    if light and any(
        posixpath.basename(path) == "torch" and stat.S_ISDIR(entry.mode) for path, entry in image.entries.items()
    ):
        yield "it has torch"


def is_labelled(image: Image) -> Iterator[str]:
    """Who finds it can tell what it is."""
    labels = image.config.get("Labels") or {}
    for name in ("title", "description", "version", "revision", "licenses"):
        if not labels.get(f"org.opencontainers.image.{name}"):
            yield f"the label org.opencontainers.image.{name} is missing"


def _variables(image: Image) -> list[str]:
    return [variable.partition("=")[0] for variable in image.config.get("Env") or []]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


CHECKS: Sequence[Check] = (
    runs_as_user,
    has_no_compiler,
    is_writable_at_home_alone,
    gives_no_rights,
    has_no_weights,
    has_no_secret,
    tells_nothing_of_its_builder,
    has_whole_sbom,
    is_small,
    is_labelled,
)

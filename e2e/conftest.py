"""The studio that the e2e tests see: a URL and a key.

By default one is started here for each way to run it (ways.py), once a session. E2E_URL and E2E_KEY name a studio that
runs elsewhere, such as a cluster's; then only that one is tested. E2E_MODEL names the model to ask for,
E2E_REALM (the issuer) and E2E_REALM_ADMIN (user:password) the realm of Keycloak that knows its people.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from collector import Collector
from hunmin_kit.testing.keycloak import KeycloakRealm, given_realm
from studio_process import SERVICES, STARTER, StudioProcess, free_ports, model_environ, new_key, studio_process
from ways import WAYS, Way, blobs_environ, kafka_environ, lacking, people, realm_administrator, realm_environ

# Jobs go on at once after a kill, and as often as it takes.
JOBS_ENVIRON = {
    "HUNMIN_TUNING_LEASE_S": "2",
    "HUNMIN_TUNING_RETRY_DELAY_S": "0",
    "HUNMIN_TUNING_MAX_ATTEMPTS": "20",
    "HUNMIN_TUNING_THREADS": "1",
}


@dataclass(frozen=True)
class Studio:
    """What a user has: where it is, a key, the name of a model."""

    url: str
    key: str
    model: str
    generation_metrics_url: str | None  # where the operator can look into the engine; None where that is not known

    def client(self, key: str | None = None) -> openai.OpenAI:
        """Return the official client, unmodified; a context."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0, timeout=60)

    def http(self) -> httpx.Client:
        """Return a bare HTTP client that sends the key; a context."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def usage(self, **query: str) -> list[dict]:
        """Return the newest rows of usage, newest first."""
        with self.http() as http:
            response = http.get("/studio/v1/usage", params={"limit": "200"} | query)
        response.raise_for_status()
        return response.json()["data"]


def pytest_report_header() -> str:
    """Say what the suite runs on, and what it does not for lack of a server."""
    if "E2E_URL" in os.environ:
        return f"e2e: the studio at {os.environ['E2E_URL']}"
    without = f"; without {', '.join(lacking())}" if lacking() else ""
    return f"e2e: {'; '.join(map(str, WAYS.values()))}{without}"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run all tests of a way: its studio is started once, and may wait for Keycloak."""
    for item in items:
        if isinstance(item, pytest.Function) and "way" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(f"e2e-{item.callspec.params['way']}"))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", params=["given"] if "E2E_URL" in os.environ else WAYS)
def way(request: pytest.FixtureRequest) -> Way | None:
    """How the studio is run; None if it runs elsewhere."""
    return WAYS.get(request.param)


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    """Where each of its services listens."""
    return dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))


@pytest.fixture(scope="session")
def realm(way: Way | None, ports: dict[str, int]) -> Iterator[KeycloakRealm | None]:
    """The realm of its people; None if it knows them itself, or nobody says where they are."""
    if way is None:
        yield given_realm(os.environ["E2E_REALM"], realm_administrator()) if "E2E_REALM" in os.environ else None
        return
    with people(way, f"http://127.0.0.1:{ports['gateway']}") as made:
        yield made


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where it sends its spans."""
    with Collector() as opened:
        yield opened


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that users meet, or while it is not there a tiny random one of the same shape."""
    if (STARTER / "model.safetensors").exists():
        return STARTER
    folder = tmp_path_factory.mktemp("models") / "starter"
    maker = Path(__file__).with_name("random_model.py")
    subprocess.run([sys.executable, str(maker), str(STARTER), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def process(
    way: Way | None,
    ports: dict[str, int],
    realm: KeycloakRealm | None,
    collector: Collector,
    model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StudioProcess | None]:
    """A started studio, in each way; None if it runs elsewhere."""
    if way is None:
        yield None
        return
    home = tmp_path_factory.mktemp(way.name)
    environ = model_environ(model_folder) | JOBS_ENVIRON | collector.environ | realm_environ(realm)
    environ |= blobs_environ(way, f"e2e-{secrets.token_hex(4)}")
    with kafka_environ(way, home / "kafka") as bus:
        made = StudioProcess(home, new_key(), one_process=way.one_process, environ=environ | bus, ports=ports)
        with studio_process(made):
            yield made


@pytest.fixture(scope="session")
def studio(process: StudioProcess | None) -> Studio:
    """The studio as its users see it."""
    url = process.url if process else os.environ["E2E_URL"]
    key = process.key if process else os.environ["E2E_KEY"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        names = [model.id for model in client.models.list()]
    return Studio(
        url=url,
        key=key,
        model=os.environ.get("E2E_MODEL", names[0]),
        generation_metrics_url=_generation_metrics_url(process) if process else None,
    )


def _generation_metrics_url(process: StudioProcess) -> str:
    """A process tells of all its services on every port that it opens."""
    port = process.ports["generation"]
    return f"{process.url}/metrics" if process.one_process else f"http://127.0.0.1:{port}/metrics"


@pytest.fixture
def http(studio: Studio) -> Iterator[httpx.Client]:
    """A bare HTTP client that sends the key."""
    with studio.http() as client:
        yield client

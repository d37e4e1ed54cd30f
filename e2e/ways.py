"""The ways to run a studio that the e2e suite covers: how many processes, which bus, whose people, where files lie.

Two studios cover all adapters. E2E_STUDIOS=all adds two more, so that both buses meet both identity providers.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hunmin_kit.identity.keycloak_realm import Administrator
from hunmin_kit.testing.keycloak import KeycloakRealm, keycloak_realm
from servers.kafka_broker import KafkaBroker

ACCOUNT = "default"  # that of the first key, and the organisation of the realm that belongs to it


@dataclass(frozen=True)
class Way:
    """A way to run a studio. A server is used where the environment names one (e2e/servers/run.py), else none."""

    name: str
    one_process: bool
    kafka: bool = False
    keycloak: bool = False
    s3: bool = False
    own_broker: bool = False  # the topics of two studios have the same names

    @property
    def on_kafka(self) -> bool:
        """Whether its events go by Kafka."""
        return self.kafka and "TEST_KAFKA" in os.environ

    @property
    def on_keycloak(self) -> bool:
        """Whether its people are Keycloak's."""
        return self.keycloak and "TEST_KEYCLOAK" in os.environ

    @property
    def on_s3(self) -> bool:
        """Whether its files lie in S3."""
        return self.s3 and "TEST_S3" in os.environ

    def __str__(self) -> str:
        """Say what it is connected to."""
        bus = "Kafka" if self.on_kafka else "the direct bus"
        people = "Keycloak" if self.on_keycloak else "people of its own"
        return f"{self.name} on {bus}, {people}, {'S3' if self.on_s3 else 'a folder'}"


ONE_PROCESS = Way("one-process", one_process=True)
PROCESS_PER_SERVICE = Way("process-per-service", one_process=False, kafka=True, keycloak=True, s3=True)
_CROSSED = (
    Way("one-process-keycloak", one_process=True, keycloak=True),
    Way("process-per-service-kafka", one_process=False, kafka=True, s3=True, own_broker=True),
)
_WAYS = (ONE_PROCESS, PROCESS_PER_SERVICE, *(_CROSSED if os.environ.get("E2E_STUDIOS") == "all" else ()))
WAYS = {way.name: way for way in _WAYS}


def lacking() -> list[str]:
    """Return the variables without which some ways are not what their fields say."""
    return [name for name in ("TEST_KAFKA", "TEST_KEYCLOAK", "TEST_S3") if name not in os.environ]


@contextmanager
def kafka_environ(way: Way, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables that lead a studio to its bus."""
    if not way.on_kafka:
        yield {}
    elif not way.own_broker:
        yield {"HUNMIN_KAFKA_SERVERS": os.environ["TEST_KAFKA"]}
    else:
        broker = KafkaBroker(folder)
        try:
            broker.start()
            yield {"HUNMIN_KAFKA_SERVERS": broker.servers}
        finally:
            broker.stop()


@contextmanager
def people(way: Way, url: str) -> Iterator[KeycloakRealm | None]:
    """Yield a realm for a studio at `url`; None: it knows its people itself."""
    if not way.on_keycloak:
        yield None
        return
    with keycloak_realm(studio_url=url, organizations=(ACCOUNT,)) as realm:
        yield realm


def realm_administrator() -> Administrator:
    """Return who may make people in the realm of a studio that runs elsewhere."""
    user, _, password = os.environ["E2E_REALM_ADMIN"].partition(":")
    return Administrator(user=user, password=password)


def realm_environ(realm: KeycloakRealm | None) -> dict[str, str]:
    """Return the variables that lead a studio to its realm."""
    if realm is None:
        return {}
    return {"HUNMIN_GATEWAY_OIDC_ISSUER": realm.issuer, "HUNMIN_GATEWAY_OIDC_CLIENT_SECRET": realm.client_secret}


def blobs_environ(way: Way, prefix: str) -> dict[str, str]:
    """Return the variables that lead a studio to its files, below a prefix of its own."""
    if not way.on_s3:
        return {}
    server = urlsplit(os.environ["TEST_S3"])
    return {
        "HUNMIN_BLOBS_URL": f"s3:/{server.path}/{prefix}",
        "AWS_ENDPOINT_URL": f"{server.scheme}://{server.hostname}:{server.port}",
        "AWS_ACCESS_KEY_ID": str(server.username),
        "AWS_SECRET_ACCESS_KEY": str(server.password),
        "AWS_DEFAULT_REGION": "us-east-1",
    }

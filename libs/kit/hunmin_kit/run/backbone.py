"""The bus of a process: Kafka if it is set, else the database. Imported only where a service has events."""

from typing import TYPE_CHECKING

from opentelemetry.trace import Tracer

from hunmin_kit.data.database import Database
from hunmin_kit.events import Events
from hunmin_kit.events.bus import Bus
from hunmin_kit.events.direct import DirectBus
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.run.settings import PlatformSettings

if TYPE_CHECKING:
    from hunmin_kit.events.kafka_bus import Cluster


def events(database: Database, settings: PlatformSettings, *, tracer: Tracer, metrics: Metrics) -> Events:
    """Return the events of the service whose schema that is."""
    timing = Timing()
    return Events(database, _bus(database, settings, timing), timing=timing, tracer=tracer, metrics=metrics.events)


def _bus(database: Database, settings: PlatformSettings, timing: Timing) -> Bus:
    if settings.kafka_servers is None:
        return DirectBus(database, timing=timing)
    from hunmin_kit.events.kafka_bus import KafkaBus  # only where there is one

    return KafkaBus(kafka_cluster(settings, settings.kafka_servers))


def kafka_cluster(settings: PlatformSettings, servers: str) -> "Cluster":
    """Return the cluster that the settings name."""
    from hunmin_kit.events.kafka_bus import Cluster

    password = settings.kafka_password
    return Cluster(
        servers=servers,
        uses_tls=settings.kafka_tls,
        ca_file=settings.kafka_ca_file,
        user=settings.kafka_user,
        password=password.get_secret_value() if password is not None else None,
        sasl_mechanism=settings.kafka_sasl_mechanism,
    )

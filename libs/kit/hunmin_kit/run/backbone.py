"""The bus of a process: Kafka if it is set, else the database. Imported only where a service has events."""

from opentelemetry.trace import Tracer

from hunmin_kit.data.database import Database
from hunmin_kit.events import Events
from hunmin_kit.events.bus import Bus
from hunmin_kit.events.direct import DirectBus
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import Metrics
from hunmin_kit.run.settings import PlatformSettings


def events(database: Database, settings: PlatformSettings, *, tracer: Tracer, metrics: Metrics) -> Events:
    """Return the events of the service whose schema that is."""
    timing = Timing()
    return Events(database, _bus(database, settings, timing), timing=timing, tracer=tracer, metrics=metrics.events)


def _bus(database: Database, settings: PlatformSettings, timing: Timing) -> Bus:
    if settings.kafka_servers is None:
        return DirectBus(database, timing=timing)
    from hunmin_kit.events.kafka_bus import KafkaBus  # only where there is one

    return KafkaBus(settings.kafka_servers)

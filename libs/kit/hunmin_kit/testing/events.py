"""Events of a schema in tests that put a service's parts together themselves."""

from opentelemetry.trace import NoOpTracer

from hunmin_kit.data import Database
from hunmin_kit.events import Events
from hunmin_kit.events.direct import DirectBus
from hunmin_kit.events.timing import Timing
from hunmin_kit.observe.metrics import Metrics

_TIMING = Timing(poll_s=0.05, look_s=0.05)


def events_of(database: Database) -> Events:
    """Return the events of a schema that has their tables, on the direct bus, looking more often than in production."""
    bus = DirectBus(database, timing=_TIMING)
    return Events(database, bus, timing=_TIMING, tracer=NoOpTracer(), metrics=Metrics().events)

"""An event as it travels: bytes under a key, with headers; and the way from there to what a handler takes, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hunmin_contracts.events import MAX_EVENT_BYTES, DataT, Envelope, EventModel, Topic
from hunmin_contracts.ids import EventId, new_event_id
from opentelemetry import propagate
from pydantic import ValidationError

_SHOWN_ERRORS = 3
_SHOWN_CHARACTERS = 80


class Unreadable(Exception):
    """No event that this release knows. The message says why, and does not quote it."""


@dataclass(frozen=True)
class Record:
    """What a bus carries. Those of a topic with the same key keep their order."""

    topic: str
    key: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        headers = sum(len(name.encode()) + len(value.encode()) for name, value in self.headers.items())
        return len(self.content) + headers


class _Head(EventModel):
    specversion: str
    type: str


def record_of(topic: Topic[DataT], data: DataT, *, key: str, source: str, event_id: EventId | None = None) -> Record:
    """Put `data` into an envelope of its own, with the trace that this code runs in."""
    event = topic.envelope(
        specversion="1.0",
        id=event_id or new_event_id(),
        source=source,
        type=topic.name,
        subject=key,
        time=datetime.now(UTC),
        datacontenttype="application/json",
        data=data,
    )
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return Record(topic.name, key, event.model_dump_json().encode(), headers)


def event_of(record: Record, topic: Topic[DataT]) -> Envelope[DataT]:
    """Return the event that `record` is; raise Unreadable if it is none of `topic`."""
    if record.size > MAX_EVENT_BYTES:
        raise Unreadable(f"It has {record.size:,} bytes; an event has {MAX_EVENT_BYTES:,} at most.")
    try:
        head = _Head.model_validate_json(record.content)
        if head.specversion != "1.0":
            raise Unreadable(f"Its specversion is {head.specversion[:_SHOWN_CHARACTERS]!r}, which is not 1.0.")
        if head.type != topic.name:
            raise Unreadable(f"Its type is {head.type[:_SHOWN_CHARACTERS]!r}, and {topic.name} carries its own alone.")
        return topic.envelope.model_validate_json(record.content)
    except ValidationError as error:
        raise Unreadable(_said(error)) from None


def _said(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN_ERRORS]
    told = (f"{'.'.join(map(str, each['loc'])) or 'the document'}: {each['msg']}" for each in found)
    return f"It is not valid. {'; '.join(told)}."

"""The JSON Schema of each topic's events, and what in a newer one an older or newer release could not read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hunmin_contracts.events import EventModel, Topic

_SAYS_NOTHING = {"title", "description", "examples", "$defs"}  # of what is valid; $defs where they are named


def schema_of(topic: Topic[Any]) -> dict[str, Any]:
    """Return the schema of the topic's events."""
    schema: dict[str, Any] = topic.envelope.model_json_schema()
    return schema


def rendered(topic: Topic[EventModel]) -> str:
    """Return it as its file has it, libs/contracts/schemas/<name>.json."""
    return json.dumps(schema_of(topic), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def incompatibilities(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say why consumers of either cannot read the events of both. New optional fields are all that may come."""
    return list(_compare(_inlined(old, old.get("$defs", {})), _inlined(new, new.get("$defs", {})), "event"))


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    inlined = {keyword: _inlined(part, definitions) for keyword, part in schema.items() if keyword != "properties"}
    if "properties" in schema:
        inlined["properties"] = {name: _inlined(part, definitions) for name, part in schema["properties"].items()}
    return {keyword: part for keyword, part in inlined.items() if keyword not in _SAYS_NOTHING}


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for keyword in sorted(old.keys() | new.keys()):
            if keyword == "properties":
                yield from _compare_fields(old[keyword], new.get(keyword, {}), path)
            elif keyword == "required":
                yield from _compare_required(set(old.get(keyword, [])), set(new.get(keyword, [])), path)
            else:
                yield from _compare(old.get(keyword), new.get(keyword), f"{path}:{keyword}")
    elif old != new:
        yield f"{path} was {json.dumps(old)}, and is {json.dumps(new)}"


def _compare_fields(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f"{path}.{name} is gone"
        else:
            yield from _compare(old[name], new[name], f"{path}.{name}")


def _compare_required(old: set[str], new: set[str], path: str) -> Iterator[str]:
    for name in sorted(new - old):
        yield f"{path}.{name} is required now, and older events lack it"
    for name in sorted(old - new):
        yield f"{path}.{name} may be missing now, and older consumers need it"

"""The fields by which a request may name a thing, as the OpenAPI file has them, and those that a table's probes fill.

An id is a text, so every text that a request takes may be one: what takes a text and is none stands in `TEXTS`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isolation_probes import Beside, Change, Probe, Reach, Run, Show, Table

Json = Mapping[str, Any]
_OPEN = ("anyOf", "oneOf", "allOf")
_FORMATS_OF_NO_ID = ("date-time", "binary")
_NO_TEXT = {"enum", "const", "properties", "contentMediaType"}  # the last: a file
_KIND = re.compile(r"{(?!new})\w+}")


_READ = "is read by the model, written by it, or cut at"
_NEW = "is what something of the caller's own will be called; names of others are never looked for"
_TEMPLATE = "fills rows of the caller's own"
_NOT_SERVED = "has no effect, or is refused whatever it is"

# What names nothing, wherever it stands, and why.
TEXTS: dict[str, str] = {
    "body continuations.[]": _READ,
    "body examples.[].fields.*": _READ,
    "body examples.[].target": _READ,
    "body examples.[].template": _READ,
    "body input": _READ,
    "body input.[]": _READ,
    "body inputs": _READ,
    "body messages.[].content": _READ,
    "body messages.[].content.[].text": _READ,
    "body parameters.stop.[]": _READ,
    "body prompt": _READ,
    "body prompt.*": _READ,
    "body prompt.[]": _READ,
    "body prompt.[].content": _READ,
    "body restart": _READ,
    "body start": _READ,
    "body stop": _READ,
    "body stop.[]": _READ,
    "body stopBefore.[]": _READ,
    "body text": _READ,
    "form system": _READ,
    "body columns.*": _TEMPLATE,
    "body rows.[].*": _TEMPLATE,
    "body template.answer": _TEMPLATE,
    "body template.prompt": _TEMPLATE,
    "body template.separator": _TEMPLATE,
    "body template.truncated": _TEMPLATE,
    "body template.verbalizers.*": _TEMPLATE,
    "form template": _TEMPLATE,
    "body name": _NEW,
    "body suffix": _NEW,
    "body dimensions": _NOT_SERVED,
    "body metadata": _NOT_SERVED,
    "body parallel_tool_calls": _NOT_SERVED,
    "body prompt_cache_key": _NOT_SERVED,
    "body safety_identifier": _NOT_SERVED,
    "body trainingDatasetAccessKey": _NOT_SERVED,
    "body trainingDatasetBucket": _NOT_SERVED,
    "body trainingDatasetSecretKey": _NOT_SERVED,
    "body user": _NOT_SERVED,
    "body validation_file": _NOT_SERVED,
    "body metadata.*": "is kept beside the caller's own job, and read by nobody else",
    "body organization": "is what the identity provider calls one; operators alone set it, and see every account",
    "body soft_prompt": "is a file of the caller's own",
    "form parameters": "is the rest of a request: the form refuses whatever would name something in it",
    "form slots": "is a number of the file that comes with it",
    "query kind": "is one of a few kinds of numbers of the job in the path",
    "query purpose": "is one of a few kinds of files of the caller's own",
    "header Idempotency-Key": "is tried by test_the_key_of_a_request_is_ones_own",
}

# What names something, and is not tried with what is not one's own, by operation and field.
UNTRIED: dict[tuple[str, str], str] = {
    ("PUT /studio/v1/operator/accounts/{account_id}/limits", "body model"): "operators alone, of whom all models are",
    ("GET /studio/v1/operator/users", "query cursor"): "operators alone, who see every user: there is one here",
    **{
        (f"GET /v1/fine_tuning/jobs/{{job_id}}/{kind}", "query after"): "is held against the job in the path alone"
        for kind in ("events", "checkpoints")
    },
}


def untried(document: Json, table: Table) -> dict[str, set[str]]:
    """Return the fields of each operation of the table that may name something, and that no probe fills."""
    found: dict[str, set[str]] = {}
    for operation, probes in table.items():
        method, path = operation.split()
        taken = fields(document, document["paths"][path][method.lower()])
        left = taken - set(TEXTS) - set().union(*map(filled_fields, probes))
        left -= {field for excused, field in UNTRIED if excused == operation}
        if left:
            found[operation] = left
    return found


def fields(document: Json, operation: Json) -> set[str]:
    """Return where an operation takes a text that nothing restricts: `query after`, `body messages.[].content`."""
    found: set[str] = set()
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "path":  # every probe fills the path
            found |= set(_texts(document, parameter["schema"], f"{parameter['in']} {parameter['name']}"))
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        where = "body" if media_type == "application/json" else "form"
        found |= set(_texts(document, content["schema"], f"{where} "))
    return found


def _texts(document: Json, schema: Json, place: str, above: Sequence[str] = ()) -> Iterator[str]:
    if (reference := schema.get("$ref")) is not None:
        if reference not in above:  # or it holds itself
            yield from _texts(document, _found(document, reference), place, [*above, reference])
        return
    parts = [part for name in _OPEN for part in schema.get(name, [])]
    for part in parts:
        yield from _texts(document, part, place, above)
    for name, part in schema.get("properties", {}).items():
        yield from _texts(document, part, _below(place, name), above)
    others = [(schema.get("items"), "[]"), (schema.get("additionalProperties"), "*")]
    others += [(part, "[]") for part in schema.get("prefixItems", [])]
    others += [(part, "*") for part in schema.get("patternProperties", {}).values()]
    for part, mark in others:
        if isinstance(part, Mapping):
            yield from _texts(document, part, _below(place, mark), above)
    is_anything = not parts and "type" not in schema
    is_text = schema.get("type") == "string" and schema.get("format") not in _FORMATS_OF_NO_ID
    if (is_anything or is_text) and not _NO_TEXT & set(schema):
        yield place


def _found(document: Json, reference: str) -> Json:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def _below(place: str, name: str) -> str:
    return f"{place}{name}" if place.endswith(" ") else f"{place}.{name}"


def filled_fields(probe: Probe) -> set[str]:
    """Return the fields, as `fields` has them, into which a probe puts what names somebody's thing."""
    match probe:
        case Reach():
            parts = {"query": probe.params, "body": probe.body, "form": probe.form}
        case Run():
            return {probe.fills}
        case Show():
            parts = {"query": {**(probe.params or {}), **({"cursor": "{cursor}"} if probe.is_behind else {})}}
        case Change():
            parts = {"body": probe.body}
        case Beside():
            parts = {"form": probe.form}
    return {place for where, part in parts.items() for place in _filled(part, f"{where} ")}


def _filled(part: Any, place: str) -> Iterator[str]:
    if isinstance(part, str) and _KIND.search(part):
        yield place
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _filled(value, _below(place, name))
    elif isinstance(part, list):
        for value in part:
            yield from _filled(value, _below(place, "[]"))

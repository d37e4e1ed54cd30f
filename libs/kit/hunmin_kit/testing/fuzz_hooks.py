"""Loaded by schemathesis: makes of what it generates what can be answered, and says which refusals are to be expected.

It knows the plan of a FuzzPlan, and nothing of the service.
"""

import json
import os
import re
import zlib
from collections.abc import MutableMapping
from typing import Any

import schemathesis

_PLAN: dict[str, Any] = json.loads(os.environ["FUZZ_PLAN"])
_FILE = "application/octet-stream"
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_NO_TEXT = re.compile(r"violates `type` at \S+ \(was string, became (integer|number|boolean)\)")


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Any) -> None:
    """Let the line of JSON before a file be made as any body is: a schema of bytes says nothing of it."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {})
            if "x-head" in content.get(_FILE, {}).get("schema", {}):
                content[_FILE]["schema"] = content[_FILE]["schema"]["x-head"]


@schemathesis.serializer(_FILE)
def write_head_and_file(context: Any, value: Any) -> bytes:
    """Put a file behind the line of JSON: a table, which every reader of files has to judge."""
    return json.dumps(value).encode() + b"\ntext,label\na,b\n"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Name what exists in half of the valid requests, and ask for no more than there is time for."""
    _spare(case.path_parameters)
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # What a link has brought, is there; and what is deleted is not there for the next.
    is_named = case.meta.phase.name.value != "stateful" and case.method != "DELETE"
    number = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "surrogatepass"))
    for part in (case.path_parameters, case.query, case.headers, case.body):
        if isinstance(part, MutableMapping):
            if is_named:
                _name(part, number)
            _bound(part)
    if isinstance(case.body, MutableMapping):
        case.body = _with_integers(case.body)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Let pass that a valid request is refused for what no schema can say, and that a form's part is text."""
    match type(failure).__name__:
        case "RejectedPositiveData":
            text = response.content.decode(errors="replace")
            return not any(part in text for part in _PLAN["refusals"])
        case "AcceptedNegativeData":  # 156 for a text, which it is in a form, is what was asked for
            return case.media_type not in _FORMS or _NO_TEXT.search(failure.message) is None
    return True


def _spare(part: Any) -> None:
    """Put another of its kind where a path names what is to be spared: a link may have brought it."""
    for name, value in part.items() if isinstance(part, MutableMapping) else ():
        if value in _PLAN["spared"]:
            part[name] = _PLAN["known"][name][0]


def _name(part: MutableMapping[str, Any], number: int) -> None:
    for place, (name, values) in enumerate(_PLAN["known"].items()):
        if name in part and number >> place & 1:
            part[name] = values[number % len(values)]


def _bound(part: MutableMapping[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, MutableMapping):
            _bound(value)
        most = _PLAN["bounds"].get(name)
        # In a URL and in a header a number is text.
        if most is not None and (isinstance(value, int | float) or (isinstance(value, str) and value.isdecimal())):
            part[name] = min(int(value), most) if isinstance(value, int | float) else str(min(int(value), most))


def _with_integers(value: Any) -> Any:
    """Write 1.0 as 1: JSON Schema holds both for the same integer, while here an integer has no fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(part) for part in value]
    if isinstance(value, dict):
        return {key: _with_integers(part) for key, part in value.items()}
    return value

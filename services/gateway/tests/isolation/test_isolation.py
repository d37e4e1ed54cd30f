"""Nobody reaches what another account owns: every operation of the OpenAPI file, by every id that it takes.

What is not the caller's own is answered exactly as what nobody has, and is the same afterwards.
"""

import re
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hunmin_kit.testing import Running
from isolation_actors import INTRUDERS, NEIGHBOUR, OWNER, STRANGER, Actor
from isolation_table import OF_NOBODY, TABLE, Beside, Reach, Show, filled
from isolation_things import nobodys, seen

pytestmark = pytest.mark.asyncio(loop_scope="module")

Callers = dict[Actor, httpx.AsyncClient]
Rights = dict[str, str | None]  # what an operation needs
_PLACE = re.compile(r"{\w+}")
_OF_ONE_ANSWER = re.compile(r'req_[0-9a-f]{24}|"trace_id":"[0-9a-f]{32}"')


def probes(kind: type) -> list[Any]:
    return [
        pytest.param(operation, probe, id=f"{operation} {number}")
        for operation, rows in TABLE.items()
        for number, probe in enumerate(rows)
        if isinstance(probe, kind)
    ]


async def send(client: httpx.AsyncClient, operation: str, probe: Reach, thing_id: str) -> tuple[int, str]:
    """Return the status and the body; of a stream, which may have no end, the beginning."""
    method, path = operation.split()
    for place in _PLACE.findall(path):
        path = path.replace(place, (probe.path or {}).get(place.strip("{}"), thing_id))
    body = None if probe.body is None else filled(probe.body, thing_id)
    async with client.stream(method, path, params=filled(probe.params, thing_id), json=body) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, (await anext(answer.aiter_bytes())).decode()
        content = await answer.aread()
    return answer.status_code, content.decode(errors="replace")


def told(text: str, thing_id: str) -> str:
    """Return an answer without what is another one in every answer; an id may be shown as another dialect's."""
    digits = re.search(r"[0-9a-f]{24}$", thing_id)
    return _OF_ONE_ANSWER.sub("", text).replace(digits[0] if digits else thing_id, "ID")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rights(up: Running) -> Rights:
    """Every operation of the OpenAPI file, with the right that it needs; None: everyone may."""
    document = (await up.http("gateway").get("/openapi.json")).json()
    found: Rights = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            scopes = [scope for one in operation.get("security", []) for scope in next(iter(one.values()))]
            found[f"{method.upper()} {path}"] = scopes[0] if scopes else None
    return found


async def test_every_operation_stands_in_the_table(rights: Rights) -> None:
    unknown = sorted(set(rights) - set(TABLE) - set(OF_NOBODY))
    assert not unknown, f"say in isolation_table.py how these reach what an account owns, or why they do not: {unknown}"
    gone = sorted((set(TABLE) | set(OF_NOBODY)) - set(rights))
    assert not gone, f"these are offered no more: {gone}"
    assert not set(TABLE) & set(OF_NOBODY)
    assert all(TABLE.values()), "each has a probe at least"


@pytest.mark.parametrize(("operation", "probe"), probes(Reach))
async def test_what_is_not_ones_own_is_not_there(
    callers: Callers, rights: Rights, operation: str, probe: Reach
) -> None:
    owner = callers[OWNER]
    thing = await probe.make(owner)
    there, not_there = thing.ids[probe.kind], nobodys(thing.ids[probe.kind])
    before = await seen(owner, thing)
    for actor in INTRUDERS:
        if actor.may(rights[operation]):
            continue
        status, text = await send(callers[actor], operation, probe, there)
        missing = await send(callers[actor], operation, probe, not_there)
        assert (status, told(text, there)) == (missing[0], told(missing[1], not_there)), (str(actor), text, missing)
        assert status in ((actor.refused,) if actor.refused is not None else probe.expected), (str(actor), text)
        assert await seen(owner, thing) == before, str(actor)
    status, text = await send(owner, operation, probe, there)  # or the above would say nothing
    assert status == probe.own if probe.own is not None else status < 300, text
    status, text = await send(owner, operation, probe, not_there)
    assert status in probe.expected, text


@pytest.mark.parametrize(("operation", "probe"), probes(Show))
async def test_a_list_shows_ones_own_alone(callers: Callers, rights: Rights, operation: str, probe: Show) -> None:
    thing = await probe.make(callers[OWNER])
    path = operation.split()[1]
    shown = {kind: thing.ids[kind] for kind in probe.kinds}
    answer = await callers[OWNER].get(path)
    assert all(mark in answer.text for mark in shown.values()), answer.text
    for actor in [*INTRUDERS, *([NEIGHBOUR] if probe.of_project else [])]:
        if actor.may(rights[operation]):
            continue
        answer = await callers[actor].get(path)
        assert answer.status_code == (actor.refused or 200), (str(actor), answer.text)
        assert not [mark for mark in shown.values() if mark in answer.text], (str(actor), answer.text)


@pytest.mark.parametrize(("operation", "probe"), probes(Beside))
async def test_the_same_name_is_another_thing_for_another_account(
    callers: Callers, operation: str, probe: Beside
) -> None:
    thing = await probe.make(callers[OWNER])
    before = await seen(callers[OWNER], thing)
    name = thing.ids["name"]
    form = {field: value.replace("{name}", name) for field, value in probe.form.items()}
    files = {"file": (probe.filename.replace("{name}", name), probe.content)}
    for actor in INTRUDERS:
        answer = await callers[actor].post(operation.split()[1], data=form, files=files)
        assert answer.status_code in ((actor.refused,) if actor.refused is not None else (200, 201)), answer.text
        assert not [one for one in thing.ids.values() if one in answer.text and one.partition("@")[0] != name]
        assert await seen(callers[OWNER], thing) == before, str(actor)
    own = await callers[STRANGER].get(probe.own.replace("{name}", name))
    assert own.json()["id"] != thing.ids["id"]

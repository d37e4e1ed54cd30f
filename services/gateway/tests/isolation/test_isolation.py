"""Nobody reaches what another account or project owns: every operation of the OpenAPI file, by every id that it takes.

What is not the caller's own is answered exactly as what nobody has, and is the same afterwards.
"""

import re
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hunmin_kit.testing import Running
from isolation_actors import INTRUDERS, NEIGHBOUR, OPERATOR, OPERATORS, OWNER, STRANGER, Actor
from isolation_probes import Beside, Change, Probe, Reach, Show
from isolation_table import OF_NOBODY, TABLE, filled
from isolation_things import IN_PROJECT, Thing, nobodys, seen

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


def intruders(probe: Probe, right: str | None) -> list[Actor]:
    """Everyone who has no business there."""
    others = [NEIGHBOUR] if probe.make in IN_PROJECT else []
    return [actor for actor in [*INTRUDERS, *others] if not actor.may(right)]


def rightful(callers: Callers, right: str | None) -> httpx.AsyncClient:
    return callers[OPERATOR if right == OPERATORS else OWNER]


async def send(client: httpx.AsyncClient, operation: str, probe: Reach, thing: Thing, thing_id: str) -> tuple[int, str]:
    """Return the status and the body; of a stream, which may have no end, the beginning."""
    method, path = operation.split()
    for place in _PLACE.findall(path):
        other = (probe.path or {}).get(place.strip("{}"))
        path = path.replace(place, thing_id if other is None else thing.ids.get(other, other))
    ids = {"id": thing_id}
    params, body, form = (filled(part, ids) for part in (probe.params, probe.body, probe.form))
    files = None if form is None else {name: (None, value) for name, value in form.items()}
    async with client.stream(method, path, params=params, json=body, files=files) as answer:
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
    right = rights[operation]
    owner = rightful(callers, right)
    thing = await probe.make(owner)
    there, not_there = thing.ids[probe.kind], nobodys(thing.ids[probe.kind])
    before = await seen(owner, thing)
    for actor in intruders(probe, right):
        status, text = await send(callers[actor], operation, probe, thing, there)
        missing = await send(callers[actor], operation, probe, thing, not_there)
        assert (status, told(text, there)) == (missing[0], told(missing[1], not_there)), (str(actor), text, missing)
        refusal = actor.refusal(right)
        assert status in (probe.expected if refusal is None else (refusal,)), (str(actor), text)
        assert await seen(owner, thing) == before, str(actor)
    status, text = await send(owner, operation, probe, thing, there)  # or the above would say nothing
    assert status == probe.own if probe.own is not None else status < 300, text
    status, text = await send(owner, operation, probe, thing, not_there)
    assert status in probe.expected, text


@pytest.mark.parametrize(("operation", "probe"), probes(Show))
async def test_a_list_shows_ones_own_alone(callers: Callers, rights: Rights, operation: str, probe: Show) -> None:
    right = rights[operation]
    owner = rightful(callers, right)
    thing = await probe.make(owner)
    path, params = operation.split()[1], filled(probe.params, thing.ids)
    shown = {kind: thing.ids[kind] for kind in probe.kinds}
    answer = await owner.get(path, params=params)
    assert all(mark in answer.text for mark in shown.values()), answer.text
    for actor in intruders(probe, right):
        answer = await callers[actor].get(path, params=params)
        assert answer.status_code == (actor.refusal(right) or 200), (str(actor), answer.text)
        assert not [mark for mark in shown.values() if mark in answer.text], (str(actor), answer.text)


@pytest.mark.parametrize(("operation", "probe"), probes(Beside))
async def test_the_same_name_is_another_thing_for_another_account(
    callers: Callers, rights: Rights, operation: str, probe: Beside
) -> None:
    thing = await probe.make(callers[OWNER])
    before = await seen(callers[OWNER], thing)
    name = thing.ids["name"]
    form = {field: value.replace("{name}", name) for field, value in probe.form.items()}
    files = {"file": (probe.filename.replace("{name}", name), probe.content)}
    for actor in intruders(probe, rights[operation]):
        answer = await callers[actor].post(operation.split()[1], data=form, files=files)
        refusal = actor.refusal(rights[operation])
        assert answer.status_code in ((200, 201) if refusal is None else (refusal,)), (str(actor), answer.text)
        assert not [one for one in thing.ids.values() if one in answer.text and one.partition("@")[0] != name]
        assert await seen(callers[OWNER], thing) == before, str(actor)
    own = await callers[STRANGER].get(probe.own.replace("{name}", name))
    assert own.json()["id"] != thing.ids["id"]


@pytest.mark.parametrize(("operation", "probe"), probes(Change))
async def test_a_change_is_of_what_is_ones_own(callers: Callers, rights: Rights, operation: str, probe: Change) -> None:
    method, path = operation.split()
    right = rights[operation]
    owner = rightful(callers, right)
    thing = await probe.make(owner)
    before = await seen(owner, thing)
    for actor in intruders(probe, right):
        answer = await callers[actor].request(method, path, json=filled(probe.body, thing.ids))
        refusal = actor.refusal(right)
        expected = (200, 201, *probe.unless) if refusal is None else (refusal,)
        assert answer.status_code in expected, (str(actor), answer.text)
        assert thing.ids["id"] not in answer.text, str(actor)
        assert await seen(owner, thing) == before, str(actor)
    answer = await owner.request(method, path, json=filled(probe.body, thing.ids))
    assert answer.status_code == probe.own if probe.own is not None else answer.status_code < 300, answer.text

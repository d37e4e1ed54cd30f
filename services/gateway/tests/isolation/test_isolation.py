"""Nobody reaches what another account or project owns: every operation of the OpenAPI file, by every id that it takes.

What is not the caller's own is answered exactly as what nobody has, and is the same afterwards.
"""

import re
import secrets
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hunmin_gateway.authentication import PROJECT_HEADER
from hunmin_kit.testing import Running
from isolation_actors import (
    INTRUDERS,
    NEIGHBOUR,
    NOBODY,
    OPERATOR,
    OPERATORS,
    OWNER,
    REVOKED,
    STRANGER,
    VIEWER,
    Actor,
)
from isolation_fields import TEXTS, UNTRIED, fields, untried
from isolation_probes import MISSING, Beside, Change, Probe, Reach, Run, Show
from isolation_table import OF_NOBODY, TABLE
from isolation_things import IN_PROJECT, MODEL, Thing, filled, make_project, nobodys, seen

pytestmark = pytest.mark.asyncio(loop_scope="module")

Callers = dict[Actor, httpx.AsyncClient]
Rights = dict[str, str | None]  # what an operation needs
_PLACE = re.compile(r"{\w+}")
_OF_ONE_ANSWER = re.compile(r'req_[0-9a-f]{24}|"trace_id":"[0-9a-f]{32}"')


def probes(*kinds: type) -> list[Any]:
    return [
        pytest.param(operation, probe, id=f"{operation} {number}")
        for operation, rows in TABLE.items()
        for number, probe in enumerate(rows)
        if isinstance(probe, kinds)
    ]


def intruders(probe: Probe, right: str | None) -> list[Actor]:
    """Everyone who has no business there."""
    others = [NEIGHBOUR] if probe.make in IN_PROJECT else []
    return [actor for actor in [*INTRUDERS, *others] if not actor.may(right)]


def rightful(callers: Callers, right: str | None) -> httpx.AsyncClient:
    return callers[OPERATOR if right == OPERATORS else OWNER]


async def send(
    client: httpx.AsyncClient, operation: str, probe: Reach | Run, thing: Thing, thing_id: str
) -> tuple[int, str]:
    """Return the status and the body; of a stream, which may have no end, the beginning."""
    if isinstance(probe, Run):
        return await probe.run(client, thing_id)
    method, path = operation.split()
    for place in _PLACE.findall(path):
        other = (probe.path or {}).get(place.strip("{}"))
        path = path.replace(place, thing_id if other is None else thing.ids.get(other, other))
    ids = {"id": thing_id}
    params, body, form = (filled(part, ids) for part in (probe.params, probe.body, probe.form))
    files = None if form is None else {name: (None, value) for name, value in form.items()}
    if files is not None and probe.upload is not None:
        files[probe.upload[0]] = probe.upload[1:]
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
async def document(up: Running) -> dict[str, Any]:
    """The OpenAPI file."""
    return (await up.http("gateway").get("/openapi.json")).json()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rights(document: dict[str, Any]) -> Rights:
    """Every operation of the OpenAPI file, with the right that it needs; None: everyone may."""
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


async def test_every_field_that_may_name_a_thing_is_tried_with_what_is_not_ones_own(document: dict[str, Any]) -> None:
    left = untried(document, TABLE)
    assert not left, f"add probes of these fields, or say in isolation_fields.py why they name nothing: {left}"
    taken = {
        (operation, field)
        for operation in TABLE
        for method, path in [operation.split()]
        for field in fields(document, document["paths"][path][method.lower()])
    }
    gone = sorted(set(TEXTS) - {field for _, field in taken}) + sorted(set(UNTRIED) - taken)
    assert not gone, f"these are taken no more: {gone}"


@pytest.mark.parametrize(("operation", "probe"), probes(Reach, Run))
async def test_what_is_not_ones_own_is_not_there(
    callers: Callers, rights: Rights, operation: str, probe: Reach | Run
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
    if probe.is_behind:
        await probe.make(owner)
        page = (await owner.get(path, params={**(params or {}), "limit": 1})).json()
        params = {**(params or {}), "cursor": page["next_cursor"]}
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


async def test_the_project_that_a_person_names_in_a_header_is_ones_own(
    callers: Callers, rights: Rights, person: httpx.AsyncClient
) -> None:
    there = (await make_project(callers[OWNER])).ids["id"]
    own = (await callers[STRANGER].get("/studio/v1/me")).json()
    assert (await person.get("/studio/v1/me", headers={PROJECT_HEADER: own["project"]["id"]})).status_code == 200
    for operation in (operation for operation, right in rights.items() if right is not None):
        method, path = operation.split()
        answers = []
        for project_id in (there, nobodys(there)):
            headers = {PROJECT_HEADER: project_id}
            answer = await person.request(method, _PLACE.sub("none", path), headers=headers)
            answers.append((answer.status_code, told(answer.text, project_id)))
        assert answers[0] == answers[1], operation
        assert answers[0][0] in MISSING, (operation, answers)
    answer = await callers[STRANGER].get("/studio/v1/me", headers={PROJECT_HEADER: there})
    assert answer.json() == own  # a key has one project, and nothing else counts


async def test_the_key_of_a_request_is_ones_own(callers: Callers) -> None:
    sent = {"url": "/v1/completions", "json": {"model": MODEL, "prompt": "이 영화는", "max_tokens": 1}}
    sent["headers"] = {"idempotency-key": secrets.token_hex(12)}
    first, again = [await callers[OWNER].post(**sent) for _ in range(2)]
    assert (first.status_code, again.text, again.headers["idempotent-replayed"]) == (200, first.text, "true")
    for actor in (STRANGER, OPERATOR, NEIGHBOUR, REVOKED, NOBODY, VIEWER):
        answer = await callers[actor].post(**sent)
        assert answer.status_code == (actor.refusal("generate") or 200), str(actor)
        assert "idempotent-replayed" not in answer.headers, str(actor)
        assert first.json()["id"] not in answer.text, str(actor)

"""The operations on accounts, projects, members, keys, their audit; and those of operators, above all accounts."""

import secrets

from isolation_probes import Change, Reach, Show, Table
from isolation_things import (
    find_account,
    find_user,
    make_account,
    make_account_limit,
    make_call,
    make_key,
    make_member,
    make_project,
    make_user_member,
)

_PROJECT = [Reach(make_project, "id")]
_MEMBER = [Reach(make_member, "id"), Reach(make_user_member, "id")]
_KEY = [Reach(make_key, "id")]
_ACCOUNT = [Reach(make_account, "id")]
_USER = [Reach(find_user, "id")]
_NEW_KEY = {"name": "stolen", "project_id": "{id}", "scopes": ["read"]}
_NEW_MEMBER = {"email": "thief@example.com", "role": "viewer", "project_id": "{id}"}
_LIMIT = {"name": "requests_per_minute", "value": 1}
_NAME = f"renamed {secrets.token_hex(4)}"

TABLE: Table = {
    "GET /studio/v1/me": [Show(find_account, ("id",))],
    "GET /studio/v1/account": [Show(find_account, ("id", "name"))],
    "PATCH /studio/v1/account": [Change(find_account, {"name": "{new}"})],
    "GET /studio/v1/projects": [
        Show(make_project, ("id", "name")),
        Show(make_project, ("id",), {"q": "{name}"}),
        Show(make_project, ("id", "name"), is_behind=True),
    ],
    "POST /studio/v1/projects": [Change(make_project, {"name": "{name}"}, unless=(403,), own=409)],
    "GET /studio/v1/projects/{project_id}": _PROJECT,
    "PATCH /studio/v1/projects/{project_id}": [Reach(make_project, "id", body={"name": _NAME})],
    "POST /studio/v1/projects/{project_id}/archive": _PROJECT,
    "POST /studio/v1/projects/{project_id}/restore": _PROJECT,
    "GET /studio/v1/members": [
        Show(make_member, ("id", "email")),
        Show(make_user_member, ("id", "email"), {"q": "{email}"}),
        Show(make_member, ("id", "email"), is_behind=True),
        Reach(make_project, "id", params={"project": "{id}"}),
    ],
    "POST /studio/v1/members": [
        Reach(make_project, "id", body=_NEW_MEMBER),
        Change(make_user_member, {"user_id": "{user}", "role": "viewer"}),
        Change(make_member, {"email": "{email}", "role": "viewer"}, own=409),
    ],
    "GET /studio/v1/members/{member_id}": _MEMBER,
    "PATCH /studio/v1/members/{member_id}": [
        Reach(make, "id", body={"role": "viewer"}) for make in (make_member, make_user_member)
    ],
    "DELETE /studio/v1/members/{member_id}": _MEMBER,
    "GET /studio/v1/keys": [
        Show(make_key, ("id", "name")),
        Show(make_key, ("id",), {"q": "{name}"}),
        Show(make_key, ("id",), {"created_by": "{maker}"}),
        Show(make_key, ("id", "name"), is_behind=True),
        Reach(make_project, "id", params={"project": "{id}"}),
    ],
    "POST /studio/v1/keys": [Reach(make_project, "id", body=_NEW_KEY)],
    "GET /studio/v1/keys/{key_id}": _KEY,
    "POST /studio/v1/keys/{key_id}/revoke": _KEY,
    "POST /studio/v1/keys/{key_id}/rotate": [Reach(make_key, "id", body={"overlap_s": 60})],
    "GET /studio/v1/audit": [
        Show(make_key, ("id", "name")),
        Show(make_key, ("id", "name"), {"actor": "{maker}"}),
        Show(make_key, ("name",), {"subject": "{id}"}),
        Show(make_key, ("id", "name"), is_behind=True),
    ],
    "GET /studio/v1/usage": [
        Reach(make_project, "id", params={"project": "{id}"}),
        Show(make_call, ("request",), is_behind=True),
    ],
    "GET /studio/v1/usage/summary": [Reach(make_project, "id", params={"project": "{id}"})],
    "GET /studio/v1/usage.csv": [Reach(make_project, "id", params={"project": "{id}"})],
    "GET /studio/v1/operator/accounts": [
        Show(make_account, ("id", "name")),
        Show(make_account, ("id",), {"q": "{name}"}),
        Show(make_account, ("id", "name"), is_behind=True),
    ],
    "POST /studio/v1/operator/accounts": [Change(make_account, {"name": "{new}"})],
    "GET /studio/v1/operator/accounts/{account_id}": _ACCOUNT,
    "PATCH /studio/v1/operator/accounts/{account_id}": [Reach(make_account, "id", body={"name": _NAME})],
    "POST /studio/v1/operator/accounts/{account_id}/suspend": _ACCOUNT,
    "POST /studio/v1/operator/accounts/{account_id}/resume": _ACCOUNT,
    "GET /studio/v1/operator/accounts/{account_id}/limits": _ACCOUNT,
    "PUT /studio/v1/operator/accounts/{account_id}/limits": [Reach(make_account, "id", body=_LIMIT)],
    "DELETE /studio/v1/operator/accounts/{account_id}/limits/{limit_id}": [
        Reach(make_account_limit, "id", path={"account_id": "account"}),
        Reach(make_account_limit, "account", path={"limit_id": "id"}),
    ],
    "GET /studio/v1/operator/users": [Show(find_user, ("id", "email")), Show(find_user, ("id",), {"q": "{email}"})],
    "GET /studio/v1/operator/users/{user_id}": _USER,
    "POST /studio/v1/operator/users/{user_id}/disable": _USER,
    "POST /studio/v1/operator/users/{user_id}/enable": _USER,
    "GET /studio/v1/operator/audit": [
        Show(make_account, ("id", "name")),
        Show(make_account, ("id", "name"), {"actor": "{maker}"}),
        Show(make_account, ("name",), {"subject": "{id}"}),
        Show(make_account, ("id", "name"), is_behind=True),
    ],
}

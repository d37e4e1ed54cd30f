"""CLOVA Studio's operations, each in its three forms: by a model's name, or by the id of the task that made one."""

from typing import Any

from isolation_probes import MISSING, REFUSED, Reach, Run, Show, Table
from isolation_runs import over_own_dataset
from isolation_things import MODEL, find_task, make_dataset, make_job, make_soft_prompt

_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "안녕"}], "maxTokens": 1}
_TEXT: dict[str, Any] = {"text": "이 영화는", "maxTokens": 1}
_MESSAGES = {"messages": _CHAT["messages"]}
_OPENAI_CHAT = {"messages": _CHAT["messages"], "max_tokens": 1}
_NO_MODEL = (*REFUSED, *MISSING)  # 40080 where others say 404


def _model(body: dict[str, Any]) -> list[Reach]:
    return [Reach(make_soft_prompt, kind, body=body, expected=_NO_MODEL) for kind in ("reference", "name")]


def _task(body: dict[str, Any]) -> list[Reach]:
    return [Reach(find_task, "id", body=body)]


def _twin(**body: Any) -> Reach:
    return Reach(make_soft_prompt, "reference", body={"model": "{id}"} | body)


_BY_MODEL = {
    "/v1/chat-completions/{model}": _model(_CHAT),
    "/v3/chat-completions/{model}": _model(_CHAT),
    "/v1/completions/{model}": _model(_TEXT),
    "/v1/api-tools/embedding/{model}": _model({"text": "이 영화는"}),
    "/v1/api-tools/chat-tokenize/{model}": _model(_MESSAGES),
    "/v3/api-tools/chat-tokenize/{model}": _model(_MESSAGES),
    "/v1/api-tools/sliding/chat-messages/{model}": _model(_CHAT),
}
_BY_TASK = {
    **{f"/v{version}/tasks/{{task_id}}/chat-completions": _task(_CHAT) for version in (1, 2, 3)},
    **{f"/v{version}/tasks/{{task_id}}/completions": _task(_TEXT) for version in (1, 2)},
}
_JOB = [Reach(make_job, "id")]

TABLE: Table = {
    **{
        f"POST {app}{path}": [*probes]
        for app in ("", "/testapp", "/serviceapp")
        for path, probes in (_BY_MODEL | _BY_TASK).items()
    },
    "POST /v1/openai/chat/completions": [_twin(**_OPENAI_CHAT), _twin(**_OPENAI_CHAT, stream=True)],
    "POST /v1/openai/completions": [_twin(prompt="이 영화는", max_tokens=1)],
    "POST /v1/openai/embeddings": [_twin(input="이 영화는")],
    "GET /v1/openai/models": [Show(make_soft_prompt, ("reference",))],
    "GET /v1/openai/models/{name}": [Reach(make_soft_prompt, kind) for kind in ("reference", "name")],
    "POST /tuning/v2/tasks": [
        Reach(make_dataset, kind, body={"model": MODEL, "trainingDatasetFilePath": "{id}"})
        for kind in ("id", "reference", "name")
    ]
    + [
        Run(
            make_soft_prompt,
            "reference",
            over_own_dataset("/tuning/v2/tasks", {"model": "{id}", "trainingDatasetFilePath": "{dataset}"}),
            fills="body model",
            expected=REFUSED,
            own=400,
        )
    ],
    "GET /tuning/v2/tasks/{task_id}": [*_JOB, Reach(find_task, "id")],
    "DELETE /tuning/v2/tasks/{task_id}": [*_JOB],
}

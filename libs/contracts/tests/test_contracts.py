"""What every contract promises: strict messages, endpoints that both ends can use, one table of errors."""

import importlib
import json
import pkgutil
import re
import typing

import hunmin_contracts
import pytest
from hunmin_contracts.endpoint import Endpoint, StreamEndpoint
from hunmin_contracts.errors import ERRORS, ErrorCode, HunminError, Problem, reference_page
from hunmin_contracts.generation import ScoreBody
from hunmin_contracts.gradients import GradientBatch
from hunmin_contracts.ids import new_account_id, new_api_key_id, new_request_id
from hunmin_contracts.peft import AdapterConfig, adapter_of
from hunmin_contracts.schema import Schema
from hunmin_contracts.soft_prompts import ImportRequest, Manifest
from pydantic import BaseModel, ValidationError

MODULES = [
    importlib.import_module(f"hunmin_contracts.{module.name}")
    for module in pkgutil.iter_modules(hunmin_contracts.__path__)
]
ENDPOINTS = [
    pytest.param(value, id=f"{module.__name__}.{name}")
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Endpoint | StreamEndpoint)
]


MESSAGES = [
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Schema) and value.__module__ == module.__name__
    if "[" not in value.__name__  # pydantic leaves a generic's filled-in classes, such as Page[UsageRow], in the module
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_messages_are_strict_and_frozen(message: type[BaseModel]) -> None:
    assert message.model_config["extra"] == "forbid"
    assert message.model_config["frozen"] is True
    assert message.model_config["allow_inf_nan"] is False
    assert message.__doc__


def test_validation_error_does_not_quote_the_input() -> None:
    class Prompt(Schema):
        text: str

    with pytest.raises(ValidationError) as caught:
        Prompt.model_validate({"text": ["비밀"]})
    assert "비밀" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_path_names_fields_of_the_request(endpoint: Endpoint | StreamEndpoint) -> None:
    assert endpoint.path.startswith("/")
    assert set(re.findall(r"{(\w+)}", endpoint.path)) <= set(endpoint.request.model_fields)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_query_holds_flat_fields_only(endpoint: Endpoint | StreamEndpoint) -> None:
    if endpoint.method in ("GET", "DELETE"):
        for field in endpoint.request.model_fields.values():
            for part in (field.annotation, *typing.get_args(field.annotation)):
                assert not (isinstance(part, type) and issubclass(part, BaseModel))


UNIONS = [
    param
    for param in ENDPOINTS
    if isinstance(param.values[0], StreamEndpoint)
    if typing.get_args(param.values[0].event.model_fields["root"].annotation)
]


@pytest.mark.parametrize("endpoint", UNIONS)
def test_events_are_told_apart_by_their_type(endpoint: StreamEndpoint) -> None:
    schema = endpoint.event.model_json_schema()
    assert schema["discriminator"]["propertyName"] == "type"


EXAMPLES = {"model": "m", "examples": [{"tokens": [1], "target": [2]}]}
SCORED = {"model": "m", "prompt": "a", "continuations": ["b"]}


@pytest.mark.parametrize("slots", ["[]", "[0]", "[1025]", "[1024, 1]", f"[{'9' * 4300}, {'9' * 4300}]"])
def test_slots_are_of_a_soft_prompt_that_there_can_be(slots: str) -> None:
    fields = {Manifest: {}, GradientBatch: EXAMPLES, ImportRequest: {"account_id": "a", "name": "a", "model": "m"}}
    for message, others in fields.items():
        wrong = json.dumps(others | {"slots": "HERE"}).replace('"HERE"', slots)
        with pytest.raises(ValidationError, match="slots"):
            message.model_validate_json(wrong)
        for right in ([1024], [1000, 24], [16] * 64):
            assert message.model_validate(others | {"slots": right}).slots == right


@pytest.mark.parametrize("name", ["", "m" * 201, "a\u0000", "a\n"])
def test_a_models_name_can_be_stored(name: str) -> None:
    for message, fields in ((ScoreBody, SCORED), (GradientBatch, EXAMPLES)):
        assert message.model_validate(fields)
        with pytest.raises(ValidationError, match="model"):
            message.model_validate(fields | {"model": name})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"peft_type": "LORA"}, "peft_type"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "task_type"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
    ],
)
def test_another_kind_of_adapter_is_none(changed: dict[str, object], said: str) -> None:
    ours = adapter_of(n_virtual=4, d_model=32, base_model=None)
    assert AdapterConfig.model_validate(ours.model_dump() | {"encoder_hidden_size": 16}) == ours
    with pytest.raises(ValidationError, match=said):
        AdapterConfig.model_validate(ours.model_dump() | changed)


@pytest.mark.parametrize("shape", [(5, 32), (4, 64)])
def test_an_adapters_configuration_is_of_its_file(shape: tuple[int, int]) -> None:
    ours = adapter_of(n_virtual=4, d_model=32, base_model=None)
    ours.check(n_virtual=4, d_model=32)
    with pytest.raises(HunminError, match="two adapters") as refused:
        ours.check(n_virtual=shape[0], d_model=shape[1])
    assert refused.value.details["param"] == "config"


def test_every_code_has_its_row_and_the_page_shows_it() -> None:
    assert set(ERRORS) == set(ErrorCode)
    page = reference_page()
    for code, kind in ERRORS.items():
        assert 400 <= kind.status <= 599
        assert f"| `{code}` | {kind.status} |" in page


@pytest.mark.parametrize("code", ErrorCode)
def test_error_survives_the_wire(code: ErrorCode) -> None:
    error = HunminError(code, "What happened. What to do.", param="a.0.b", retry_after_s=2, message="m", code=1)
    wire = Problem.of(error, request_id="req_1", trace_id="0af7").model_dump_json()
    problem = Problem.model_validate_json(wire)
    again = problem.error()
    assert (again.code, again.message, again.details) == (code, error.message, error.details)
    assert again.status == problem.status == ERRORS[code].status
    assert (problem.request_id, problem.trace_id) == ("req_1", "0af7")
    assert problem.type == f"urn:hunmin:error:{code}"


def test_unknown_code_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no_such_code"):
        HunminError("no_such_code", "x")


def test_ids_tell_what_they_name() -> None:
    for make, prefix in ((new_request_id, "req_"), (new_account_id, "acct_"), (new_api_key_id, "key_")):
        first, second = make(), make()
        assert first.startswith(prefix)
        assert first != second

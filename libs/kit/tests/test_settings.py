"""Settings come from HUNMIN_… variables, and one that is wrong is named in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
from hunmin_kit.run import Settings
from hunmin_kit.run.errors import StartError
from hunmin_kit.run.plan import plan
from hunmin_kit.run.service import in_order
from kit_sample import echo, front
from pydantic import ValidationError

BOTH = (front.SERVICE, echo.SERVICE)


def refusal(env: dict[str, str], *services: object) -> str:
    with pytest.raises(StartError) as caught:
        plan(services or BOTH, env)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_suffice() -> None:
    checked = plan(BOTH, {})
    assert checked.settings["front"] == front.FrontSettings()
    assert checked.platform.home == Path(".hunmin").resolve()
    assert checked.platform.database_url is None


def test_values_are_typed() -> None:
    env = {"HUNMIN_FRONT_LEVEL": "3", "HUNMIN_FRONT_COLOURS": '["빨강", "b"]', "HUNMIN_FRONT_PORT": "0", "HOME": "/x"}
    settings = plan(BOTH, env | {"HUNMIN_DRAIN_S": "1.5", "PORT": "1", "LEVEL": "9"}).settings["front"]
    assert settings == front.FrontSettings(level=3, colours=["빨강", "b"], port=0)


def test_settings_are_frozen_and_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVEL", "9")
    monkeypatch.setenv("HUNMIN_FRONT_LEVEL", "9")
    settings = front.FrontSettings()
    assert settings.level == 1
    with pytest.raises(ValidationError):
        settings.level = 2
    with pytest.raises(ValidationError):
        front.FrontSettings(levle=2)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("HUNMIN_FRONT_LEVLE", "HUNMIN_FRONT_LEVEL"),
        ("HUNMIN_FRNT_LEVEL", "HUNMIN_FRONT_LEVEL"),
        ("HUNMIN_DATABSE_URL", "HUNMIN_DATABASE_URL"),
        ("HUNMIN_ECHO_LEVEL", "HUNMIN_"),
        ("HUNMIN_FRONT_TOKN_FILE", "HUNMIN_FRONT_TOKEN"),
    ],
)
def test_unknown_variable_is_refused_with_a_suggestion(variable: str, hint: str) -> None:
    message = refusal({variable: "1"})
    assert message.startswith(f"{variable} is set, but nothing here reads it. Did you mean {hint}")


def test_unknown_variable_like_no_other_is_refused_too() -> None:
    assert refusal({"HUNMIN_ZZZ": "1"}) == "HUNMIN_ZZZ is set, but nothing here reads it. Unset it."


def test_variables_of_a_service_that_runs_elsewhere_are_its_own_to_check() -> None:
    plan(BOTH, {"HUNMIN_TOKENIZER_PORT": "1", "HUNMIN_DATA": "/data"})


def test_variables_of_the_client_library_stand_in_the_same_shell() -> None:
    plan(BOTH, {"HUNMIN_API_KEY": "hm_x", "HUNMIN_BASE_URL": "http://studio.example"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HUNMIN_FRONT_LEVEL", "x"),
        ("HUNMIN_FRONT_PORT", "65536"),
        ("HUNMIN_FRONT_PORT", "tcp://10.0.0.1:8080"),  # what Kubernetes injects for a Service, see enableServiceLinks
        ("HUNMIN_FRONT_COLOURS", "[1"),
        ("HUNMIN_DRAIN_S", "-1"),
        ("HUNMIN_LOG_LEVEL", "LOUD"),
        ("HUNMIN_OTLP_ENDPOINT", "collector"),
        ("HUNMIN_DATABASE_URL", "mysql://x/y"),
        ("HUNMIN_DATABASE_URL", "비밀"),
        ("HUNMIN_ECHO_URL", "echo:1"),
    ],
)
def test_ill_typed_variable_is_named_and_its_value_is_not(variable: str, value: str) -> None:
    message = refusal({variable: value})
    assert variable in message
    assert "is not valid" in message
    assert "value error" not in message
    assert value not in message


def test_value_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    assert plan(BOTH, {"HUNMIN_FRONT_TOKEN_FILE": str(file)}).settings["front"].token == "s3cret"
    file.write_text("postgresql://u:p@db/x\n")
    url = plan(BOTH, {"HUNMIN_DATABASE_URL_FILE": str(file)}).platform.database_url
    assert url.get_secret_value() == "postgresql://u:p@db/x"
    assert "cannot be read" in refusal({"HUNMIN_FRONT_TOKEN_FILE": str(tmp_path / "none")})
    assert "both set" in refusal({"HUNMIN_FRONT_TOKEN_FILE": str(file), "HUNMIN_FRONT_TOKEN": "x"})


def test_caller_finds_the_callee() -> None:
    assert plan(BOTH, {}).urls == {}  # in this process
    assert plan(BOTH, {"HUNMIN_ECHO_URL": "http://echo:1"}).urls == {"echo": "http://echo:1/"}
    assert plan([front.SERVICE], {"HUNMIN_ECHO_URL": "http://echo:1"}).urls == {"echo": "http://echo:1/"}
    assert "HUNMIN_ECHO_URL is not valid" in refusal({"HUNMIN_ECHO_URL": "echo:1"}, front.SERVICE)
    assert "HUNMIN_ECHO_URL is not set" in refusal({}, front.SERVICE)  # neither here nor installed


def test_services_start_after_those_they_need() -> None:
    a, b = replace(echo.SERVICE, name="a", needs=("b",)), replace(echo.SERVICE, name="b", needs=("c", "elsewhere"))
    c = replace(echo.SERVICE, name="c")
    assert [service.name for service in in_order([a, b, c])] == ["c", "b", "a"]
    with pytest.raises(StartError, match="circle"):
        in_order([a, replace(b, needs=("a",))])


def test_subclass_must_not_forget_its_port() -> None:
    class Portless(Settings):
        pass

    with pytest.raises(ValidationError):
        Portless()

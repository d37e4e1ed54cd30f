"""Settings from HUNMIN_… variables: typed, frozen, and none that nobody reads."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from hunmin_kit.observe.logs import LogFormat
from hunmin_kit.run.errors import StartError
from hunmin_kit.web.client import Deadlines
from hunmin_kit.web.events import SILENCE_S

PREFIX = "HUNMIN_"
_FILE = "_FILE"
_LAST_PORT = 65535
_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+asyncpg://")
_SERVERS = re.compile(r"[^\s,:]+:[0-9]+(,[^\s,:]+:[0-9]+)*")
_FIELD_IN_MESSAGE = re.compile(r'field "(\w+)"')
# Read by the client library and the tests, never by a service: set in many shells that also start services.
_FOREIGN = frozenset({"HUNMIN_API_KEY", "HUNMIN_BASE_URL", "HUNMIN_DATA"})


class _Frozen(BaseSettings):
    """Built from what it is given. Only `load_settings` reads an environment, and only the one handed to it."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor alone."""
        return (init_settings,)


class Settings(_Frozen):
    """The base of a service's settings: HUNMIN_<SERVICE>_<FIELD>, or a file named by HUNMIN_<SERVICE>_<FIELD>_FILE.

    A subclass gives `port` its default, and a default to everything else that it adds.
    """

    host: str = "127.0.0.1"
    port: int
    url: HttpUrl | None = None  # where others find the service; its own process ignores it

    @field_validator("port")
    @classmethod
    def _is_port(cls, port: int) -> int:  # a validator, since a subclass that gives the default declares the field anew
        if not 0 <= port <= _LAST_PORT:
            raise ValueError(f"a port is a number from 0 to {_LAST_PORT}")
        return port


class PlatformSettings(_Frozen):
    """What a process needs whatever it runs: HUNMIN_<FIELD>."""

    home: Path = Path(".hunmin")
    database_url: SecretStr | None = None  # None: an embedded server under `home`
    blobs_url: str | None = None  # e.g. s3://bucket/prefix; None: a folder under `home`
    kafka_servers: str | None = None  # host:port,host:port; None: events are read from PostgreSQL, without a broker
    kafka_user: str | None = None  # None: the brokers ask nobody who they are
    kafka_password: SecretStr | None = Field(default=None, validate_default=True)
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_tls: bool = False
    kafka_ca_file: Path | None = None  # PEM, of who signed the brokers' certificates; None: whom this machine trusts
    kafka_partitions: int = Field(default=6, ge=1)  # of a topic that `hunmin topics` creates
    kafka_replication: int = Field(default=-1, ge=-1)  # how many brokers keep it; -1: as the brokers say
    database_pool_size: int = Field(default=10, ge=1, le=200)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat | None = None  # None: for a terminal if there is one
    otlp_endpoint: HttpUrl | None = None  # e.g. http://collector:4318
    drain_delay_s: float = Field(default=0, ge=0)  # between /readyz turning 503 and the ports closing
    drain_s: float = Field(default=30, ge=0)  # how long running requests may go on after that
    body_limit_bytes: int = Field(default=16 * 2**20, ge=1)
    upload_limit_bytes: int = Field(default=2**30, ge=1)  # of a file, on the paths that take large ones
    connect_timeout_s: float = Field(default=2, gt=0)
    call_deadline_s: float = Field(default=60, gt=0)
    stream_deadline_s: float = Field(default=600, gt=0)
    stream_silence_s: float = Field(default=SILENCE_S, gt=0)  # of a stream without a deadline
    max_connections: int = Field(default=256, ge=1)  # to each service that is called over the network

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(_POSTGRESQL):
            raise ValueError("it is written as postgresql://user:password@host/database")
        return url

    @field_validator("kafka_password")
    @classmethod
    def _goes_with_a_user(cls, password: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if (password is None) is not (others.data.get("kafka_user") is None):
            raise ValueError("it goes with HUNMIN_KAFKA_USER: set both, or neither")
        return password

    @field_validator("kafka_servers")
    @classmethod
    def _is_servers(cls, servers: str | None) -> str | None:
        if servers is not None and not _SERVERS.fullmatch(servers):
            raise ValueError("it is written as host:port, or host:port,host:port")
        return servers

    @field_validator("blobs_url")
    @classmethod
    def _is_blobs(cls, url: str | None) -> str | None:
        if url is not None and "://" not in url:
            raise ValueError("it is written as s3://bucket/prefix, or with another protocol of fsspec")
        return url

    @property
    def deadlines(self) -> Deadlines:
        """How long this process waits for the services that it calls."""
        return Deadlines(
            connect_s=self.connect_timeout_s,
            call_s=self.call_deadline_s,
            stream_s=self.stream_deadline_s,
            silence_s=self.stream_silence_s,
        )


SettingsT = TypeVar("SettingsT", bound=Settings)
_AnyT = TypeVar("_AnyT", bound=_Frozen)


def service_prefix(service: str) -> str:
    """Return the prefix of that service's variables."""
    return f"{PREFIX}{service.upper().replace('-', '_')}_"


def load_settings(kind: type[_AnyT], prefix: str, environ: Mapping[str, str]) -> _AnyT:
    """Build `kind` from the variables of `environ` under `prefix`; a StartError names the first one that is wrong."""
    values = {name.lower(): value for name, value in _with_files(kind, prefix, environ).items()}
    source = EnvSettingsSource(kind, env_prefix=prefix, env_ignore_empty=False)
    source.env_vars = values
    try:
        return kind(**source())
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        variable = prefix + "_".join(str(part) for part in first["loc"][:1]).upper()
        message = first["msg"].removeprefix("Value error, ")
        raise StartError(f"{variable} is not valid: {message[0].lower()}{message[1:]}.") from None
    except SettingsError as error:
        field = _FIELD_IN_MESSAGE.search(str(error))
        variable = prefix + (field[1].upper() if field else "…")
        raise StartError(f"{variable} is not valid: a list or an object is written as JSON.") from None


def check_names(
    environ: Mapping[str, str], known: Mapping[str, type[_Frozen]], others: Iterable[str], callees: Iterable[str]
) -> None:
    """Refuse, with a StartError, a HUNMIN_… variable that nothing reads.

    `known` maps prefixes to the settings read here; `others` are prefixes of services that are installed but do not run
    here, whose variables are theirs to check; `callees` are prefixes of services that are called, each with its _URL.
    """
    names = {prefix + field.upper() for prefix, kind in known.items() for field in kind.model_fields}
    names |= {f"{prefix}URL" for prefix in callees}
    ignored = tuple(prefix for prefix in others if prefix not in known)
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _FOREIGN or variable.startswith(ignored):
            continue
        if variable not in names and variable.removesuffix(_FILE) not in names:
            bare = [name.removeprefix(PREFIX) for name in names]
            close = get_close_matches(variable.removeprefix(PREFIX), bare, n=1)
            hint = f" Did you mean {PREFIX}{close[0]}?" if close else " Unset it."
            raise StartError(f"{variable} is set, but nothing here reads it.{hint}")


def _with_files(kind: type[_Frozen], prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables under `prefix`, those ending in _FILE replaced by what their file holds."""
    found = {name: value for name, value in environ.items() if name.startswith(prefix)}
    for field in kind.model_fields:
        variable = prefix + field.upper()
        path = found.get(variable + _FILE)
        if path is None or f"{field}{_FILE.lower()}" in kind.model_fields:
            continue
        if variable in found:
            raise StartError(f"{variable} and {variable}{_FILE} are both set. Unset one of them.")
        try:
            found[variable] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"{variable}{_FILE} names a file that cannot be read: {error}.") from None
    return found

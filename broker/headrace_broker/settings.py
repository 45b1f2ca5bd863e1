"""Settings from the environment, `HEADRACE_*`. For the command line and process mains; nothing else imports this."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .durations import parse_duration
from .errors import ConfigurationError, HeadraceError
from .locate import DEFAULT_URL
from .namespace import MAX_PARTITIONS
from .retention import DEFAULT_RULE, FOREVER, MAX_COUNT

LogLevel = Literal["debug", "info", "warning", "error"]


def _milliseconds(value: Any) -> int:
    try:
        return parse_duration(float(value) if isinstance(value, str) and _is_number(value) else value)
    except HeadraceError as error:
        raise ValueError(str(error)) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kept(value: Any) -> int | None:
    return None if value == FOREVER else _milliseconds(value)


def _counted(value: Any) -> int | None:
    if value == FOREVER:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) <= MAX_COUNT:
        return int(value)
    raise ValueError(f'It is a whole number up to {MAX_COUNT:,}, or "forever"')


@dataclass(frozen=True)
class Written:
    """How a setting is written, where its type does not say it: for the configuration reference."""

    how: str


Milliseconds = Annotated[int, BeforeValidator(_milliseconds), Written("duration")]
"""Given as a duration: seconds, or text such as "10s"; kept in ms."""


class Settings(BaseSettings):
    """Every field is `HEADRACE_` and its name in capitals.

    docs/reference/configuration.md is made of it: a field's docstring is its meaning, a sentence in it that begins with
    "None: " its default.
    """

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_", env_ignore_empty=True, extra="ignore", validate_default=False
    )

    url: str = DEFAULT_URL
    """Which server: `redis://`, `rediss://`, `unix://` or `embedded://DIR`."""
    namespace: str = "headrace"
    """What all keys begin with: 1 to 64 of `A-Z a-z 0-9 _ . -`."""
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)] | None = None
    """How many orchestrators can share the work. None: 4 for a new namespace, else what it has."""
    lease: Milliseconds = Field(default=10_000, ge=500)
    """After this long without a sign of life a worker's tasks are given to another. The same everywhere."""
    ownership: Milliseconds = Field(default=5_000, ge=500)
    """After this long without a sign of life an orchestrator's partitions go to another."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Tasks that one child process runs at once."""
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """Child processes of a worker."""
    max_tasks_per_child: Annotated[int, Field(ge=1)] | None = None
    """A child process that has begun so many tasks is replaced. None: never."""
    max_memory: Annotated[ByteSize, Field(ge=1_000_000), Written("size in bytes, `512MB`, `1.5GiB`")] | None = None
    """A child process whose resident memory is that large is replaced. None: never."""
    rq: Annotated[int, Field(ge=0, le=256)] | None = None
    """Rq workers, each for one task with `isolation="process"` at once. None: 1 if there are such tasks."""
    rq_url: str | None = None
    """RQ's own server; not a cluster. None: the same."""
    queues: Annotated[tuple[str, ...], NoDecode, Written("names, comma-separated")] = ()
    """Queues whose tasks are taken. None: all queues that the targets' tasks name."""
    retention_completed: Annotated[int | None, BeforeValidator(_kept), Written("duration, or `forever`")] = (
        DEFAULT_RULE.completed_ms
    )
    """How long completed and cancelled instances are kept, where their flow does not say."""
    retention_failed: Annotated[int | None, BeforeValidator(_kept), Written("duration, or `forever`")] = (
        DEFAULT_RULE.failed_ms
    )
    """The same for failed ones."""
    retention_count: Annotated[int | None, BeforeValidator(_counted), Written("whole number, or `forever`")] = (
        DEFAULT_RULE.count
    )
    """Ended instances that are kept of each flow, where it does not say. The same for all orchestrators."""
    metrics_host: str = "127.0.0.1"
    """The address on which an orchestrator serves `/metrics`."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """Its port. 0 turns it off."""
    log_level: LogLevel = "info"
    """What is logged, on stderr: this and worse."""
    grace: Milliseconds = 20_000
    """How long running tasks may go on after SIGTERM."""

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def load_settings(**given: Any) -> Settings:
    """The settings: `given` (None counts as not given) over the environment over the defaults.

    Raises `ConfigurationError`, which names each setting that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [_complaint(detail["loc"], detail["msg"], detail["input"], given) for detail in error.errors()]
        raise ConfigurationError("\n".join(lines)) from None


def _complaint(location: tuple[int | str, ...], reason: str, value: object, given: dict[str, Any]) -> str:
    name = str(location[0]) if location else "settings"
    variable = f"HEADRACE_{name.upper()}"
    option = given.get(name)
    from_environment = option is None and variable in os.environ
    source = variable if from_environment else f"--{name.replace('_', '-')}"
    shown = os.environ[variable] if from_environment else value if option is None else option
    reason = reason.removeprefix("Value error, ")
    return f"{source} cannot be {shown!r}: {reason}{'' if reason.endswith(('.', '?')) else '.'}"

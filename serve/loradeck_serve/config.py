"""Settings of one server: a YAML file, then LORADECK_SERVE_ environment variables, then the command line."""

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.reference import BaseReference, Reference
from loradeck_tasks.defaults import default_task
from loradeck_tasks.task import Task

ENVIRONMENT_PREFIX = "LORADECK_SERVE_"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that the engine can be built for."""
_DOORS = ("inference", "admin", "metrics")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(_Strict):
    """Where a door listens."""

    host: str = Field(default="127.0.0.1", description="interface; loopback unless said otherwise")
    port: int = Field(default=0, ge=0, le=65535, description="0 takes any free port, shown in the ready line")

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse `host:port`, `[::1]:port` or `port`. Raises ValueError."""
        host, _, port = text.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit():
            raise ValueError(f"bad address {text!r}: use host:port")
        return cls(host=host, port=int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Limits(_Strict):
    """What one request and all requests together may ask for."""

    message_bytes: int = Field(default=4 << 20, ge=1024, le=1 << 30, description="largest gRPC message")
    text_characters: int = Field(default=200_000, ge=1, description="longest text, question, context or field")
    batch_texts: int = Field(default=256, ge=1, le=4096, description="most texts of one BatchClassify")
    max_tokens: int = Field(default=1024, ge=1, description="most tokens that a request may ask to generate")
    default_deadline_seconds: float = Field(default=120, gt=0, description="of a request that sets none")
    max_deadline_seconds: float = Field(default=600, gt=0, description="longer deadlines are cut to this")
    queue: int = Field(default=1024, ge=1, description="requests waiting for dispatch, over all adapters")
    queue_per_adapter: int = Field(default=512, ge=1, description="requests waiting for dispatch, of one adapter")
    concurrent: int = Field(default=256, ge=1, description="requests in the engine at once")
    concurrent_per_adapter: int = Field(
        default=192,
        ge=1,
        description="requests of one adapter in the engine at once; below `concurrent`, so that others need not wait "
        "for one of its requests to end; three quarters of it if not given",
    )
    concurrent_per_caller: int = Field(
        default=0, ge=0, description="requests of one caller (x-loradeck-caller) in the engine at once; 0 is no bound"
    )
    rate_per_adapter: float = Field(
        default=0, ge=0, description="requests of one adapter per second; more wait in the queue; 0 is no bound"
    )
    rate_per_caller: float = Field(
        default=0, ge=0, description="requests of one caller per second; more wait in the queue; 0 is no bound"
    )
    chunk_milliseconds: float = Field(
        default=10, ge=0, le=1000, description="longest that a streamed token waits to share a chunk with the next ones"
    )
    load_wait_seconds: float = Field(
        default=20, gt=0, description="longest wait for room in host memory before RESOURCE_EXHAUSTED"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.default_deadline_seconds > self.max_deadline_seconds:
            raise ValueError("`default_deadline_seconds` must not exceed `max_deadline_seconds`")
        if "concurrent_per_adapter" not in self.model_fields_set:
            # One adapter must not fill an engine whose bound was lowered.
            object.__setattr__(self, "concurrent_per_adapter", max(1, self.concurrent * 3 // 4))
        return self


class Fairness(_Strict):
    """How the queue shares the engine between adapters (virtual token counting)."""

    quantum_seconds: float = Field(
        default=0.1, gt=0, le=60, description="how long an adapter may hold a slot while another one waits for it"
    )
    swaps_per_second: float = Field(
        default=0, ge=0, description="adapters that come into a slot per second, beside those in one; 0 is no bound"
    )
    prompt_token_cost: float = Field(default=1.0, gt=0, description="virtual time of one prompt token")
    output_token_cost: float = Field(default=2.0, gt=0, description="virtual time of one output token")
    weights: dict[str, float] = Field(
        default_factory=dict, description="share per adapter name, 1 unless said otherwise; 2 gets twice as much"
    )

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        bad = [name for name, weight in weights.items() if not weight > 0]
        if bad:
            raise ValueError(f"weights must be greater than 0: {', '.join(bad)}")
        return weights


class BaseTasks(_Strict):
    """Tasks that requests without an adapter use; `classification` takes its labels from the request."""

    classification: Task = default_task("classification", labels=({"name": "a"}, {"name": "b"}))
    short_qa: Task = default_task("short_qa")
    long_qa: Task = default_task("long_qa")


class ServerConfig(_Strict):
    """Everything that `loradeck serve` can be told."""

    base: str = Field(description="base or full checkpoint: name[@...] of the registry, hub:org/name, dir:folder")
    registry: str | None = Field(default=None, description="folder or URL of the registry; unset serves the base alone")
    cache: Path | None = Field(default=None, description="local file cache; unset: the user's cache folder")
    name: str | None = Field(default=None, description="name of the base in replies; unset: from its reference")
    inference: Address = Field(default=Address(port=8500), description="door for applications")
    admin: Address = Field(default=Address(port=8501), description="door for operators: adapters, aliases")
    metrics: Address = Field(default=Address(port=8502), description="Prometheus")
    allow_remote_admin: bool = Field(default=False, description="let the admin door listen beyond loopback")
    engine: dict[str, Any] = Field(default_factory=dict, description="engine options, passed to vLLM as they are")
    slots: int = Field(default=4, ge=0, le=512, description="adapters in one batch; 0 serves the base alone")
    host_adapters: int = Field(default=16, ge=0, description="adapters in host memory, slots included")
    max_rank: int = Field(default=16, description="largest LoRA rank")
    limits: Limits = Limits()
    fairness: Fairness = Fairness()
    watch_interval_seconds: float = Field(default=0.5, gt=0, le=1, description="how often the registry is looked at")
    pins: tuple[str, ...] = Field(default=(), description="references loaded at start and never evicted")
    drain_seconds: float = Field(default=20, ge=0, description="longest wait for running requests at a stop")
    base_tasks: BaseTasks = BaseTasks()
    probe: bool = Field(default=True, description="prove at load that the served adapter is the trained one")
    allow_indistinct: bool = Field(default=False, description="serve adapters whose effect is under the noise floor")
    engine_restarts: int = Field(default=3, ge=0, description="restarts of a dead engine before the server gives up")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(*_DOORS, mode="before")
    @classmethod
    def _address(cls, value: object, info: ValidationInfo) -> object:
        value = _door(value)
        if isinstance(value, dict) and info.field_name is not None:
            # A door of which only the host or only the port is said has the other one's default.
            return cls.model_fields[info.field_name].default.model_dump() | value
        return value

    @field_validator("base")
    @classmethod
    def _base(cls, value: str) -> str:
        BaseReference.parse(value)
        return value

    @field_validator("pins")
    @classmethod
    def _pins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Reference.parse(text)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_rank not in RANKS:
            raise ValueError(f"`max_rank` must be one of {', '.join(map(str, RANKS))}")
        if self.slots and self.host_adapters < self.slots:
            raise ValueError(f"`host_adapters` ({self.host_adapters}) must be at least `slots` ({self.slots})")
        if self.pins and not (self.registry and self.slots):
            raise ValueError("`pins` need a `registry` and at least one of `slots`")
        if len(self.pins) >= max(self.host_adapters, 1):
            raise ValueError("`pins` must leave room in `host_adapters` for at least one more adapter")
        if not self.admin.is_loopback and not self.allow_remote_admin:
            raise ValueError("`admin` listens beyond this machine: set `allow_remote_admin` if that is meant")
        ports = [a.port for a in (self.inference, self.admin, self.metrics) if a.port]
        if len(set(ports)) != len(ports):
            raise ValueError("`inference`, `admin` and `metrics` need ports of their own")
        return self


def load_config(
    path: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> ServerConfig:
    """Merge file, environment and `overrides` (None is ignored). Raises InvalidError or NotFoundError, one line."""
    merged: dict[str, Any] = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NotFoundError(f"cannot read the configuration {path}: {error.strerror}", field="config") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidError(f"{path} is not YAML: {' '.join(str(error).split())}", field="config") from None
        if content is not None and not isinstance(content, dict):
            raise InvalidError(f"{path} must hold a map of settings", field="config")
        merged = content or {}
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise InvalidError(f"the environment variable {name} is not YAML: {text!r}", field="config") from None
            _set(merged, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), value)
    for name, value in overrides.items():
        if value is not None:
            _set(merged, name.split("."), value)
    try:
        return ServerConfig.model_validate(merged)
    except ValidationError as error:
        raise InvalidError(_one_line(error), reason="BAD_CONFIG", field="config") from None


def _set(target: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = target.setdefault(part, {})
        if path[0] in _DOORS:
            try:
                inner = target[part] = _door(inner)
            except ValueError:
                raise InvalidError(
                    f"server configuration: {part}: bad address {inner!r}: use host:port",
                    reason="BAD_CONFIG",
                    field="config",
                ) from None
        if not isinstance(inner, dict):
            inner = target[part] = {}
        target = inner
    target[path[-1]] = value


def _door(value: Any) -> Any:
    """An address as a map, if it is a text or a port. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"port": value}
    return Address.parse(value).model_dump() if isinstance(value, str) else value


def _one_line(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _keys(item["loc"][:-1]), n=1)
            parts.append(f"unknown key `{where}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
        elif item["type"] == "missing":
            parts.append(f"`{where}` is required")
        else:
            parts.append(f"{where + ': ' if where else ''}{item['msg'].removeprefix('Value error, ')}")
    return "server configuration: " + "; ".join(parts)


def _keys(path: tuple[int | str, ...]) -> list[str]:
    model: Any = ServerConfig
    for part in path:
        fields = getattr(model, "model_fields", {})
        model = fields[part].annotation if part in fields else None
    return list(getattr(model, "model_fields", {}))

"""Settings of one server."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loradeck_registry.reference import BaseReference, Reference
from loradeck_serve.config.address import Address, as_door
from loradeck_serve.config.doors import AccessFiles, Connections, Tls
from loradeck_serve.config.limits import Fairness, Limits
from loradeck_serve.config.strict import Strict
from loradeck_serve.config.tracing import Tracing
from loradeck_tasks.defaults import default_task
from loradeck_tasks.task import Task

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that the engine can be built for."""
DOORS = ("inference", "admin", "metrics")


class BaseTasks(Strict):
    """Tasks that requests without an adapter use; `classification` takes its labels from the request."""

    classification: Task = default_task("classification", labels=({"name": "a"}, {"name": "b"}))
    short_qa: Task = default_task("short_qa")
    long_qa: Task = default_task("long_qa")


class ServerConfig(Strict):
    """Everything that `loradeck serve` can be told."""

    base: str = Field(
        description="base or full checkpoint: name[@...] of the registry, hub:org/name, dir:folder, pocket:base"
    )
    registry: str | None = Field(default=None, description="folder or URL of the registry; unset serves the base alone")
    cache: Path | None = Field(default=None, description="local file cache; unset: the user's cache folder")
    name: str | None = Field(default=None, description="name of the base in replies; unset: from its reference")
    inference: Address = Field(default=Address(port=8500), description="door for applications")
    admin: Address = Field(default=Address(port=8501), description="door for operators: adapters, aliases")
    metrics: Address = Field(default=Address(port=8502), description="Prometheus")
    allow_remote_admin: bool = Field(default=False, description="let the admin door listen beyond loopback")
    tls: Tls | None = Field(default=None, description="certificates; unset: the doors speak plaintext")
    insecure: bool = Field(default=False, description="let doors without TLS listen beyond loopback")
    access: AccessFiles | None = Field(default=None, description="who may do what; unset: everybody everything")
    audit_log: Path | None = Field(
        default=None, description="file for the actions of operators, beside the server's log; made if it is not there"
    )
    connections: Connections = Connections()
    tracing: Tracing = Tracing()
    engine: dict[str, Any] = Field(default_factory=dict, description="engine options, passed to vLLM as they are")
    slots: int = Field(default=4, ge=0, le=512, description="adapters in one batch; 0 serves the base alone")
    host_adapters: int = Field(default=16, ge=0, description="adapters in host memory, slots included")
    max_rank: int = Field(default=16, description="largest LoRA rank")
    limits: Limits = Limits()
    fairness: Fairness = Fairness()
    watch_interval_seconds: float = Field(default=0.5, gt=0, le=1, description="how often the registry is looked at")
    heartbeat_seconds: float = Field(
        default=10, ge=0.1, le=60, description="how often the server says in the registry that it lives; after three "
        "times that without a word, a move that all servers make together no longer waits for it"
    )  # fmt: skip
    pins: tuple[str, ...] = Field(default=(), description="references loaded at start and never evicted")
    drain_seconds: float = Field(default=20, ge=0, description="longest wait for running requests at a stop")
    base_tasks: BaseTasks = BaseTasks()
    probe: bool = Field(default=True, description="prove at load that the served adapter is the trained one")
    allow_indistinct: bool = Field(default=False, description="serve adapters whose effect is under the noise floor")
    engine_restarts: int = Field(default=3, ge=0, description="restarts of a dead engine before the server gives up")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(*DOORS, mode="before")
    @classmethod
    def _address(cls, value: object, info: ValidationInfo) -> object:
        value = as_door(value)
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
        far = [name for name in self.plaintext_doors if not getattr(self, name).is_loopback]
        if far and not self.insecure:
            raise ValueError(
                f"`{far[0]}` listens beyond this machine in plaintext: set `tls` (certificate and key), or `insecure` "
                "(--insecure) if the network keeps others out"
            )
        ports = [a.port for a in (self.inference, self.admin, self.metrics) if a.port]
        if len(set(ports)) != len(ports):
            raise ValueError("`inference`, `admin` and `metrics` need ports of their own")
        return self

    @property
    def plaintext_doors(self) -> tuple[str, ...]:
        """The doors that do not speak TLS."""
        return tuple(name for name in DOORS if self.tls is None or name not in self.tls.doors)

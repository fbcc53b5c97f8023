"""How the doors are guarded: certificates, credentials, and what one connection may do."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from loradeck_serve.config.strict import Strict

DoorName = Literal["inference", "admin", "metrics"]


class Tls(Strict):
    """Certificates of the doors, PEM files. They are read again when they change."""

    certificate: Path = Field(description="the server's certificate, and the chain behind it")
    key: Path = Field(description="its private key")
    client_ca: Path | None = Field(
        default=None, description="mutual TLS: callers must have a certificate signed by this authority"
    )
    doors: tuple[DoorName, ...] = Field(
        default=("inference", "admin", "metrics"), min_length=1, description="doors that speak TLS; others plaintext"
    )


class AccessFiles(Strict):
    """Who may do what. Without it everybody who reaches a door may do everything. Read again when they change."""

    callers: Path = Field(description="YAML: callers, their certificates and grants")
    keys: Path | None = Field(default=None, description="JSON: salted hashes of API keys, made by `loradeck keys`")


class Connections(Strict):
    """Bounds of connections, of both gRPC doors. A change needs a restart."""

    connections: int = Field(default=1024, ge=1, description="connections of one door at once; more are refused")
    streams: int = Field(default=1024, ge=1, description="calls at once on one connection; more wait at the client")
    metadata_bytes: int = Field(
        default=16384, ge=1024, le=1 << 20, description="metadata of one call; more ends it with RESOURCE_EXHAUSTED"
    )
    handshake_seconds: float = Field(default=10, gt=0, description="until a new connection must speak HTTP/2")
    ping_seconds: float = Field(
        default=10, gt=0, description="pings of a client that come faster, without calls, close its connection"
    )
    keepalive_seconds: float = Field(
        default=60, gt=0, description="how often a silent connection is asked whether it lives"
    )
    keepalive_timeout_seconds: float = Field(default=20, gt=0, description="no answer to that closes it")
    idle_seconds: float = Field(default=1800, gt=0, description="a connection without calls is closed after this long")
    age_seconds: float = Field(
        default=7200,
        gt=0,
        description="a connection is closed after this long, and clients open another; calls on it get "
        "`limits.max_deadline_seconds` to end. Ends what a caller holds without reading",
    )

"""How a client reaches a door and who it is there: TLS, a client certificate, an API key."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from loradeck_registry.errors import InvalidError, NotFoundError

_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Access:
    """Credentials of a client. Nothing set: plaintext, and nobody in particular.

    Naming `ca` or `certificate` turns TLS on. Files are read when a channel is opened. `server_name` is what the
    server's certificate must be for, where that is not the host of the address. The key never shows in `repr`.
    """

    tls: bool = False
    ca: Path | None = None
    """PEM file of the authority that signed the server's certificate; None: those that gRPC trusts."""
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    api_key: str = field(default="", repr=False)
    insecure: bool = False
    """Send an API key in plaintext beyond this machine."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What LORADECK_TLS, _TLS_CA, _TLS_CERT, _TLS_KEY, _TLS_NAME, _API_KEY[_FILE] and _INSECURE say.

        Raises NotFoundError if the key's file cannot be read, InvalidError if it is empty.
        """
        values = os.environ if environment is None else environment
        api_key = values.get("LORADECK_API_KEY", "").strip()
        if not api_key and (file := values.get("LORADECK_API_KEY_FILE")):
            api_key = _read(Path(file), "the API key").decode(errors="replace").strip()
            if not api_key:
                raise InvalidError(f"the API key's file {file} is empty", reason="BAD_ACCESS")

        def path(name: str) -> Path | None:
            return Path(values[name]) if values.get(name) else None

        return cls(
            tls=values.get("LORADECK_TLS", "").lower() in _TRUE,
            ca=path("LORADECK_TLS_CA"),
            certificate=path("LORADECK_TLS_CERT"),
            key=path("LORADECK_TLS_KEY"),
            server_name=values.get("LORADECK_TLS_NAME", ""),
            api_key=api_key,
            insecure=values.get("LORADECK_INSECURE", "").lower() in _TRUE,
        )

    @property
    def encrypted(self) -> bool:
        """Whether channels use TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def check(self, target: str) -> None:
        """Raise InvalidError if this cannot be used, or would show the API key to whoever listens on the way."""
        if (self.certificate is None) != (self.key is None):
            raise InvalidError(
                "a client certificate needs its private key, and the other way round: give both", reason="BAD_ACCESS"
            )
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            raise InvalidError("the API key holds characters that no key of loradeck has", reason="BAD_ACCESS")
        if self.api_key and not self.encrypted and not self.insecure and not is_local(target):
            raise InvalidError(
                f"the API key would travel to {target} in plaintext: use TLS (--tls, LORADECK_TLS=1), or --insecure "
                "(LORADECK_INSECURE=1) if nobody listens there",
                reason="PLAINTEXT_KEY",
            )

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel; None is plaintext. Raises NotFoundError if a file is unreadable, InvalidError if not PEM.

        gRPC itself would say so on standard error only, and then that nobody answers.
        """
        if not self.encrypted:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.ca, "the authority's certificate", b"CERTIFICATE"),
            private_key=_pem(self.key, "the private key", b"PRIVATE KEY"),
            certificate_chain=_pem(self.certificate, "the certificate", b"CERTIFICATE"),
        )

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Channel options."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()


def is_local(target: str) -> bool:
    """Whether a gRPC target is on this machine for sure: a loopback address, `localhost`, or a Unix socket."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    address = rest if scheme in ("ipv4", "ipv6") else target.removeprefix("dns:").lstrip("/")
    return all(_is_loopback(part) for part in address.split(","))


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0] if address.count(":") == 1 or address.startswith("[") else address
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read {what} ({path}): {error.strerror}", reason="FILE_NOT_FOUND") from None


def _pem(path: Path | None, what: str, kind: bytes) -> bytes | None:
    if path is None:
        return None
    content = _read(path, what)
    if kind + b"-----" not in content:
        raise InvalidError(f"{path} does not hold {what}: a PEM file is needed", reason="BAD_ACCESS")
    return content

"""Where a door listens."""

import ipaddress
from typing import Any

from pydantic import Field

from loradeck_serve.config.strict import Strict


class Address(Strict):
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


def as_door(value: Any) -> Any:
    """An address as a map, if it is a text or a port. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"port": value}
    return Address.parse(value).model_dump() if isinstance(value, str) else value

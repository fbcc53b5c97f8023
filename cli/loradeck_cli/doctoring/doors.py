"""The server's doors: free or answered by a server, and who can reach them."""

import errno
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from loradeck_cli.doctoring.check import Check, Result, examine
from loradeck_cli.health import ask

if TYPE_CHECKING:
    from loradeck_serve.config import Address, ServerConfig

SECONDS = 3.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask a server that listens on every interface."""


def doors(config: "ServerConfig") -> Iterator[Check]:
    """Checks of the three doors' ports and of their exposure."""
    yield from examine(
        "doors",
        [
            ("inference", partial(port, config.inference, grpc=True)),
            ("admin", partial(port, config.admin, grpc=True)),
            ("metrics", partial(port, config.metrics, grpc=False)),
            ("exposure", partial(exposure, config)),
        ],
    )


def port(address: "Address", grpc: bool) -> Result:
    """Whether the door could listen; if not, who does."""
    if address.port == 0:
        return "ok", f"any free port of {address.host}"
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the server binds: a port whose connections only wait to be forgotten is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address.host, address.port))
            return "ok", f"{address} is free"
        except socket.gaierror:
            return "failed", f"{address.host} is no address that this machine can look up", "name one of its addresses"
        except OSError as error:
            reason = error.errno
    if reason == errno.EADDRNOTAVAIL:
        return "failed", f"{address.host} is not an address of this machine", "listen on 0.0.0.0 or one of its own"
    if reason == errno.EACCES:
        return "failed", f"{address}: this user may not listen there", "take a port from 1024 on"
    state = (grpc_state if grpc else metrics_state)(address)
    if state is not None:
        return "ok", f"a server answers on {address}: {state}"
    return (
        "failed",
        f"{address} is taken by another program",
        f"end it (ss -ltnp 'sport = :{address.port}') or change it",
    )


def grpc_state(address: "Address") -> str | None:
    """What a gRPC door says of its health."""
    state = ask(str(_reachable(address)), timeout=SECONDS)
    return None if state == "NO_ANSWER" else state


def metrics_state(address: "Address") -> str | None:
    """Whether loradeck's metrics are there."""
    try:
        with urlopen(f"http://{_reachable(address)}/metrics", timeout=SECONDS) as reply:
            text = reply.read().decode(errors="replace")
    except (OSError, URLError, ValueError):
        return None
    return "metrics of loradeck" if "loradeck_build_info" in text else None


def _reachable(address: "Address") -> "Address":
    return address.model_copy(update={"host": ANY.get(address.host, address.host)})


def exposure(config: "ServerConfig") -> Result:
    """Which doors other machines reach: none of them asks for credentials, none is encrypted."""
    doors = {"inference": config.inference, "admin": config.admin, "metrics": config.metrics}
    far = [name for name, address in doors.items() if not address.is_loopback]
    if not far:
        return "ok", "only this machine reaches the doors; there are no certificates to check: they speak plaintext"
    text = f"{', '.join(far)} beyond this machine, in plaintext and without credentials"
    if "admin" in far:
        return "warning", text, "whoever reaches `admin` loads, unloads and moves aliases: keep it on loopback"
    return "warning", text, "let only trusted callers reach it: network policy, firewall, or a proxy with TLS in front"

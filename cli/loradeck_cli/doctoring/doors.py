"""The server's doors: free or answered by a server, and who can reach them."""

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from loradeck_cli.doctoring.check import Check, Result, examine
from loradeck_cli.health import ask
from loradeck_client import Access

if TYPE_CHECKING:
    from loradeck_serve.config import Address, ServerConfig, Tls

SECONDS = 3.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask a server that listens on every interface."""


def doors(config: "ServerConfig") -> Iterator[Check]:
    """Checks of the three doors' ports and of their exposure."""
    plain = config.plaintext_doors
    yield from examine(
        "doors",
        [
            ("inference", partial(port, config.inference, grpc=True, tls=None if "inference" in plain else config.tls)),
            ("admin", partial(port, config.admin, grpc=True, tls=None if "admin" in plain else config.tls)),
            ("metrics", partial(port, config.metrics, grpc=False, tls=None if "metrics" in plain else config.tls)),
            ("exposure", partial(exposure, config)),
            ("certificates", partial(certificates, config)),
            ("callers", partial(callers, config)),
        ],
    )


def port(address: "Address", grpc: bool, tls: "Tls | None" = None) -> Result:
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
    if tls is not None and shows(_reachable(address), tls.certificate):
        return "ok", f"a server with the certificate of `tls` answers on {address}"
    state = (grpc_state if grpc else metrics_state)(address, tls is not None)
    if state is not None:
        return "ok", f"a server answers on {address}: {state}"
    return (
        "failed",
        f"{address} is taken by another program",
        f"end it (ss -ltnp 'sport = :{address.port}') or change it",
    )


def shows(address: "Address", certificate: Path) -> bool:
    """Whether whoever listens there shows this certificate. No authority and no client certificate is needed to see."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        own = ssl.PEM_cert_to_DER_cert(_first(certificate.read_text(encoding="ascii")))
        with (
            socket.create_connection((address.host, address.port), SECONDS) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return connection.getpeercert(binary_form=True) == own
    except (OSError, ValueError):
        return False


def _first(pem: str) -> str:
    """The certificate at the head of a chain."""
    head, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
    return pem[pem.index(head) : pem.index(end) + len(end)]


def grpc_state(address: "Address", tls: bool = False) -> str | None:
    """What a gRPC door says of its health. LORADECK_TLS_... say how to reach one with TLS."""
    access = Access.from_environment()
    state = ask(str(_reachable(address)), timeout=SECONDS, access=replace(access, tls=True) if tls else Access())
    return None if state == "NO_ANSWER" else state


def metrics_state(address: "Address", tls: bool = False) -> str | None:
    """Whether loradeck's metrics are there."""
    context = None
    if tls:
        access = Access.from_environment()
        context = ssl.create_default_context(cafile=access.ca)
        context.check_hostname = False
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
    try:
        where = f"{'https' if tls else 'http'}://{_reachable(address)}/metrics"
        with urlopen(where, timeout=SECONDS, context=context) as reply:
            text = reply.read().decode(errors="replace")
    except (OSError, URLError, ValueError):
        return None
    return "metrics of loradeck" if "loradeck_build_info" in text else None


def _reachable(address: "Address") -> "Address":
    return address.model_copy(update={"host": ANY.get(address.host, address.host)})


def exposure(config: "ServerConfig") -> Result:
    """Which doors other machines reach, and what keeps those from using them."""
    doors = {"inference": config.inference, "admin": config.admin, "metrics": config.metrics}
    far = [name for name, address in doors.items() if not address.is_loopback]
    if not far:
        return "ok", "only this machine reaches the doors"
    plain = [name for name in far if name in config.plaintext_doors]
    # Metrics know no callers: a client certificate is all that can be asked for there.
    mutual = config.tls is not None and config.tls.client_ca is not None
    asked = [n for n in far if (mutual and n not in plain) or (n != "metrics" and config.access is not None)]
    missing = [name for name in far if name not in asked]
    text = f"{', '.join(far)} beyond this machine"
    if plain:
        text += f"; in plaintext: {', '.join(plain)}"
    if missing:
        text += f"; without credentials: {', '.join(missing)}"
    if "admin" in missing or "inference" in missing:
        return "warning", text, "name callers (`access`), or let only trusted ones reach it: network policy, firewall"
    if plain:
        return "warning", text, "certificates (`tls`), or a network where nobody listens: API keys travel readable"
    return "ok", text


def certificates(config: "ServerConfig") -> Result:
    """Whether the certificate can be used, and how long."""
    if config.tls is None:
        return "skipped", "no `tls`"
    from loradeck_serve.grpc.tls import Certificates

    ends = Certificates(config.tls).ends
    left = ends - datetime.now(UTC)
    text = f"{config.tls.certificate} is valid until {ends:%Y-%m-%d}"
    if left < timedelta(0):
        return "failed", f"{config.tls.certificate} ended on {ends:%Y-%m-%d}", "renew it; servers notice by themselves"
    return ("warning", text, "renew it; servers notice by themselves") if left < timedelta(days=14) else ("ok", text)


def callers(config: "ServerConfig") -> Result:
    """Whether callers and keys can be read, and fit each other."""
    if config.access is None:
        return "skipped", "no `access`: everybody who reaches a door may do everything"
    from loradeck_serve.access.callers import Callers
    from loradeck_serve.access.keys import Keys, utc_now

    known = Callers.read(config.access.callers).callers
    keys = Keys.read(config.access.keys).keys if config.access.keys is not None else ()
    good = [key for key in keys if key.state(utc_now()) == "valid"]
    text = f"{len(known)} callers, {len(good)} valid keys"
    reached = {key.caller for key in good} | {name for name, caller in known.items() if caller.certificates}
    if strangers := sorted({key.caller for key in good} - set(known)):
        return "warning", f"{text}; keys without grants: {', '.join(strangers)}", f"add them to {config.access.callers}"
    if cut_off := sorted(set(known) - reached):
        return "warning", f"{text}; no way in for: {', '.join(cut_off)}", "loradeck keys add NAME"
    return "ok", text

"""Options of every command that talks to a server: TLS, a client certificate, an API key."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_OPTIONS = {
    "LORADECK_TLS": click.option("--tls", "LORADECK_TLS", is_flag=True, help="Use TLS."),
    "LORADECK_TLS_CA": click.option(
        "--tls-ca", "LORADECK_TLS_CA", type=_FILE, metavar="PEM", help="Authority of the server's certificate."
    ),
    "LORADECK_TLS_CERT": click.option(
        "--tls-cert", "LORADECK_TLS_CERT", type=_FILE, metavar="PEM", help="Certificate of this client."
    ),
    "LORADECK_TLS_KEY": click.option("--tls-key", "LORADECK_TLS_KEY", type=_FILE, metavar="PEM", help="Its key."),
    "LORADECK_TLS_NAME": click.option(
        "--tls-name", "LORADECK_TLS_NAME", metavar="NAME", help="Name in the server's certificate, if not the host."
    ),
    "LORADECK_API_KEY_FILE": click.option(
        "--api-key-file", "LORADECK_API_KEY_FILE", type=_FILE, metavar="PATH",
        help="File with the API key; the key itself may be in LORADECK_API_KEY.",
    ),
    "LORADECK_INSECURE": click.option(
        "--insecure", "LORADECK_INSECURE", is_flag=True, help="Send the API key in plaintext to another machine."
    ),
}  # fmt: skip


def connection(function: F) -> F:
    """Add the options. What is given goes into the environment, where this process and its children find it.

    There it stays until the command is done; clients are made with `access=Access.from_environment()`. The key itself
    is never an argument: everybody on a machine can read those of its processes.
    """

    @functools.wraps(function)
    def run(*args: Any, **values: Any) -> Any:
        before = dict(os.environ)
        for name in _OPTIONS:
            value = values.pop(name)
            if value:
                os.environ[name] = "1" if value is True else str(value)
            if name == "LORADECK_API_KEY_FILE" and value:
                # The option is nearer than a key that the environment has.
                os.environ.pop("LORADECK_API_KEY", None)
        try:
            return function(*args, **values)
        finally:
            for name in ("LORADECK_API_KEY", *_OPTIONS):
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)

    for option in reversed(_OPTIONS.values()):
        run = option(run)
    return run  # type: ignore[return-value]

"""Telling systemd that the service is ready (`Type=notify`), as sd_notify(3) describes."""

import os
import socket
from contextlib import suppress


def notify_systemd(state: str) -> None:
    """Send `state`, for example READY=1, to the service manager; nothing where there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    # A leading @ stands for the zero byte of an abstract socket.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(state.encode(), address)

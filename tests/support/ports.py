"""Ports for servers that must be told which to take."""

import random
import socket


def free_ports(count: int) -> list[int]:
    """So many ports that are free, out of the range from which the system gives ports to whoever asks for any."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free port")

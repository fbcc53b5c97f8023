"""Azurite, Microsoft's emulator of Azure Blob Storage, where this machine has it (`npm install -g azurite`)."""

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.support.ports import free_ports

PROGRAM = shutil.which("azurite-blob")
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Account and key that Azurite documents for everybody's tests; they open nothing else."""
_VERSION = "2021-08-06"


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Its address; the environment holds endpoint and credentials while it runs."""
    assert PROGRAM is not None
    (port,) = free_ports(1)
    options = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command = [PROGRAM, "--blobPort", str(port), *options]
    address = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    with (
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", _ACCOUNT)
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", _KEY)
        patch.setenv("AZURE_STORAGE_ENDPOINT", address)
        try:
            _wait(port)
            yield address
        finally:
            server.terminate()


def make_container(address: str, name: str) -> None:
    """Make an empty container."""
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
    text = "PUT" + "\n" * 12 + headers + f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"{address}/{name}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{signature}",
            "Content-Length": "0",
        },
    )
    with urllib.request.urlopen(request):
        pass


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("azurite did not start")

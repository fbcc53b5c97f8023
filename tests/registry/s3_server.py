"""A real S3-protocol server, moto's, in a thread of this process: requests one after the other, as if atomic."""

import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address; the environment holds endpoint and credentials while it runs."""
    pytest.importorskip("moto", reason="needs the dev extra")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        try:
            yield address
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def make_bucket(address: str, name: str) -> None:
    """Make an empty bucket."""
    with urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")):
        pass


def open_uploads(address: str, bucket: str) -> bytes:
    """The server's list of multipart uploads that were begun and neither completed nor aborted."""
    with urllib.request.urlopen(f"{address}/{bucket}?uploads") as answer:
        return bytes(answer.read())

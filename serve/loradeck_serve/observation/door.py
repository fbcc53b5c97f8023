"""The metrics door: Prometheus' format over HTTP, on a port of its own, in threads beside the event loop."""

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import make_wsgi_app

from loradeck_registry.errors import PreconditionError
from loradeck_serve.config import Address
from loradeck_serve.grpc.tls import Certificates
from loradeck_serve.observation.metrics import Metrics

_SECONDS = 10.0
"""What a scraper gets for handshake, request and reading the answer, each."""
_MOST = 32
"""Connections at once; more are closed. Prometheus needs one."""


class _Handler(WSGIRequestHandler):
    """Logs nothing, and waits for nobody for long."""

    timeout = _SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per connection, a bounded number of them. TLS is spoken in that thread: nobody can stop the others."""

    daemon_threads = True
    block_on_close = False
    certificates: Certificates | None = None

    def __init__(self, address: Address) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MOST)
        super().__init__((address.host, address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See socketserver."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See socketserver."""
        try:
            request.settimeout(_SECONDS)
            if self.certificates is not None:
                request = self.certificates.context.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:
            # A handshake that failed, or a scraper that went away.
            with suppress(OSError):
                self.shutdown_request(request)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the scraper's affair."""


def _only_metrics(metrics: WSGIApplication) -> WSGIApplication:
    """The client library's page under `/metrics`, and 404 elsewhere, where the library would show it as well."""

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").rstrip("/") == "/metrics":
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"metrics are at /metrics\n"]

    return page


class MetricsDoor:
    """An HTTP server in a thread. Raises PreconditionError (PORT_IN_USE) when it cannot listen."""

    def __init__(self, address: Address, metrics: Metrics, certificates: Certificates | None = None) -> None:
        try:
            self._server = _Server(address)
        except OSError as error:
            raise PreconditionError(
                f"the metrics door cannot listen on {address} ({error.strerror}): choose another with --metrics-port, "
                "or 0 for any free one",
                reason="PORT_IN_USE",
                field="metrics",
            ) from None
        self._server.certificates = certificates
        self._server.set_app(_only_metrics(make_wsgi_app(metrics.registry)))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = Address(host=address.host, port=self._server.server_port)

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

"""Certificates of the doors: read, checked before they are used, and read again when they change."""

import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from loradeck_registry.errors import PreconditionError
from loradeck_serve.config import Tls

_NOT_PEM = "it does not hold what it should, as PEM and without a password"


class Certificates:
    """The certificate in use. gRPC asks for it at each new connection, from a thread of its own."""

    def __init__(self, files: Tls) -> None:
        """Reads the files. Raises PreconditionError (BAD_CERTIFICATE) with one line."""
        self._files = files
        self._lock = threading.Lock()
        self._configuration, self._context, self._ends = self._read()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(p for p in (self._files.certificate, self._files.key, self._files.client_ca) if p is not None)

    def reload(self) -> None:
        """Read the files again; new connections get what they hold now.

        Raises as the constructor, and for a certificate that has ended; then nothing changes.
        """
        configuration, context, ends = self._read()
        if ends < datetime.now(UTC):
            raise self._bad(self._files.certificate, f"it ended on {ends:%Y-%m-%d}")
        with self._lock:
            self._configuration, self._context, self._ends = configuration, context, ends

    def server_credentials(self) -> grpc.ServerCredentials:
        """Of one gRPC door, for as long as it lives."""
        given = self._configuration

        def newest() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            with self._lock:
                if given is self._configuration:
                    return None
                given = self._configuration
                return given

        # None is no change; the stubs do not know.
        fetcher: Any = newest
        return grpc.dynamic_ssl_server_credentials(given, fetcher, self._files.client_ca is not None)

    @property
    def ends(self) -> datetime:
        """When the server's certificate, or one of the chain behind it, is no longer valid."""
        with self._lock:
            return self._ends

    @property
    def context(self) -> ssl.SSLContext:
        """The same for a door that is not gRPC's: take it anew for each connection."""
        with self._lock:
            return self._context

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, ssl.SSLContext, datetime]:
        files = self._files
        # gRPC takes whatever it is given and then fails every handshake; OpenSSL says what is wrong.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        path = files.certificate
        try:
            certificate = files.certificate.read_bytes()
            chain = x509.load_pem_x509_certificates(certificate)
            path = files.key
            key = files.key.read_bytes()
            # The password is asked for on the terminal otherwise.
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
            authority = None
            if files.client_ca is not None:
                path = files.client_ca
                authority = files.client_ca.read_bytes()
                context.load_verify_locations(cadata=authority.decode("ascii"))
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            other = error.reason == "KEY_VALUES_MISMATCH"
            raise self._bad(path, "the key does not belong to the certificate" if other else _NOT_PEM) from None
        except OSError as error:
            raise self._bad(path, error.strerror or str(error)) from None
        except ValueError:
            raise self._bad(path, _NOT_PEM) from None
        ends = min(part.not_valid_after_utc for part in chain)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority), context, ends

    def _bad(self, path: Path, why: str) -> PreconditionError:
        return PreconditionError(f"cannot use {path} for TLS: {why}", reason="BAD_CERTIFICATE", field="tls")


def _no_password() -> str:
    raise ValueError("encrypted")


def certificate_names(context: object) -> frozenset[str]:
    """The names in the verified certificate of a call's other end: subject alternative names and common name.

    `context` is the call's. Empty without a certificate.
    """
    properties = context.auth_context()  # type: ignore[attr-defined]
    names = (
        *properties.get("x509_subject_alternative_name", ()),
        *properties.get("x509_common_name", ()),
    )
    return frozenset(name.decode(errors="replace") for name in names)

"""Addresses of registries: which object store a folder path or URL names, and how it is opened."""

import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError
from loradeck_registry.stores.store import Store, no_credentials

_REMOTE = {
    "s3": "s3", "s3a": "s3",
    "gs": "gs", "gcs": "gs",
    "az": "az", "azure": "az", "abfs": "az", "abfss": "az",
}  # fmt: skip
_RETRIES: Mapping[str, Any] = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "gs": (),
}
_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(url: str | Path, *, create: bool = False) -> Store:
    """The store at a folder path, file://, s3://, gs://, az:// or memory:// address.

    With `create`, an absent folder is made; buckets are never made. Credentials and endpoints of object stores come
    from the environment. Raises NotFoundError if a folder is absent, PreconditionError if it cannot be made or is not
    a folder, or an account or its credentials are missing, InvalidError for an address of no known form.
    """
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        return _open_folder(local_folder(text), create=create)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return _open_folder(local_folder(text), create=create)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise InvalidError(
            "bad registry address: credentials and options come from the environment, not from the address",
            field="registry",
        )
    if parts.scheme == "memory":
        with _memory_lock:
            return Store(text, _memory.setdefault(text.rstrip("/"), MemoryStore()))
    if parts.scheme not in _REMOTE or not parts.netloc or ".." in parts.path.split("/"):
        raise InvalidError(
            f"bad registry {text[:120]!r}: give a folder path, file:///folder, s3://bucket/prefix, gs://bucket/prefix, "
            "az://container/prefix or memory://name",
            field="registry",
        )
    return _open_remote(text.rstrip("/"), parts.scheme)


def local_folder(text: str) -> Path:
    """The folder that a path or file:// address names. Raises InvalidError."""
    if "://" not in text:
        if not text.strip():
            raise InvalidError("the registry's name is empty: give a folder or an address", field="registry")
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise InvalidError(f"bad registry {text[:120]!r}: write file:///folder with three slashes", field="registry")
    return Path(unquote(parts.path))


def _open_folder(folder: Path, *, create: bool) -> Store:
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PreconditionError(
                f"cannot make the registry folder {folder}: {error.strerror}; choose a writable place",
                reason="NOT_PERMITTED",
            ) from error
    if not folder.exists():
        raise NotFoundError(
            f"no registry at {folder}: the folder does not exist; make one with "
            f"`loradeck registry init --registry {folder}`",
            reason="NO_REGISTRY",
        )
    if not folder.is_dir():
        raise PreconditionError(f"{folder} is a file, not a registry folder", reason="NO_REGISTRY")
    return Store(str(folder), LocalStore(folder), folder=folder)


def _open_remote(url: str, scheme: str) -> Store:
    options: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=10)}
    if _endpoint(scheme).startswith("http://"):
        options["allow_http"] = True
    _, separator, rest = url.partition("://")
    try:
        store = from_url(  # type: ignore[call-overload]
            f"{_REMOTE[scheme]}{separator}{rest}" if scheme in ("gcs", "azure") else url,
            client_options=options,
            retry_config=_RETRIES,
        )
    except (BaseError, ValueError) as error:
        raise no_credentials(url, str(error).partition("\n")[0]) from error
    return Store(url, store)


def _endpoint(scheme: str) -> str:
    return next((os.environ[name] for name in _ENDPOINTS[_REMOTE[scheme]] if os.environ.get(name)), "")

"""The registry: one object store, opened or made, and all that can be done with it."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from loradeck_registry import changes, layout
from loradeck_registry.cache import Cache, default_folder
from loradeck_registry.changes import Change
from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_registry.log import decode, encode
from loradeck_registry.parts.fetching import Fetching
from loradeck_registry.parts.gathering import Gathering
from loradeck_registry.parts.pushing import Pushing
from loradeck_registry.revision import FORMAT, Revision, parse_manifest
from loradeck_registry.signing import Trust
from loradeck_registry.stores.addresses import open_store

__all__ = ["Registry", "Revision", "parse_manifest"]


class Registry(Gathering, Pushing, Fetching):
    """One registry. Safe to use from many threads, processes and machines at once. Use `Registry.open` or
    `Registry.init`."""

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        cache: Path | None = None,
        cache_limit: int | None = None,
        trust: Trust | None = None,
    ) -> "Registry":
        """The registry at a folder path, or a file://, s3://, gs://, az:// or memory:// address.

        `cache` is the local read cache's folder, `cache_limit` the bytes it may grow to (defaults: LORADECK_CACHE,
        LORADECK_CACHE_LIMIT). `trust` says what signatures are asked for (default: what the environment says,
        `Trust.from_environment`). Raises NotFoundError (NO_REGISTRY, NO_BUCKET), PreconditionError (NO_CREDENTIALS,
        NOT_PERMITTED), UnavailableError (not reachable), InvalidError for other addresses.
        """
        store = open_store(url)
        try:
            marker = decode(store.get(layout.MARKER), layout.MARKER)
        except NotFoundError as error:
            if error.reason == "NO_BUCKET":
                raise
            raise NotFoundError(
                f"{store.url} is not a registry (it has no {layout.MARKER}); make one with "
                f"`loradeck registry init --registry {store.url}`",
                reason="NO_REGISTRY",
            ) from None
        if marker.get("format") != FORMAT:
            raise PreconditionError(
                f"the registry {store.url} has format {marker.get('format')}, this loradeck reads {FORMAT}: "
                "upgrade loradeck",
                reason="REGISTRY_FORMAT",
            )
        return cls(store, Cache(cache or default_folder(), cache_limit), trust or Trust.from_environment())

    @classmethod
    def init(cls, url: str | Path, *, cache: Path | None = None) -> "Registry":
        """Make a registry in an absent or empty folder, or an empty bucket or prefix; an existing one is opened.

        Raises PreconditionError if the place cannot be written or holds other things, and what `open` raises.
        """
        store = open_store(url, create=True)
        if store.size(layout.MARKER) is None:
            if not store.is_empty() and store.size(layout.MARKER) is None:
                raise PreconditionError(
                    f"{store.url} holds other things and is not a registry: choose an empty place", reason="NOT_EMPTY"
                )
            marker = {"format": FORMAT, "id": uuid.uuid4().hex, "create_time": datetime.now(UTC).isoformat()}
            store.put_if_absent(layout.MARKER, encode(marker))
        return cls.open(url, cache=cache)

    def changes(self, since: datetime) -> list[Change]:
        """Change markers from `since` (less an overlap) on; each says: read that name or alias again."""
        return changes.since(self._store, since)

"""Reading a registry's records: names, revisions, aliases, and what a reference names now."""

import difflib

from loradeck_registry import layout
from loradeck_registry.aliases.log import AliasEntry, AliasLog
from loradeck_registry.cache import Cache
from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.log import NumberedLog
from loradeck_registry.manifest import Manifest, digest_of
from loradeck_registry.records import RevisionRecord
from loradeck_registry.reference import LATEST, PROD, Reference, check_name
from loradeck_registry.remembering import remember
from loradeck_registry.revision import Revision, parse_manifest
from loradeck_registry.signing import Trust
from loradeck_registry.stores.store import Store, damaged

KEPT_LOGS = 8192
"""Logs of names and aliases that are kept; also those that turned out empty, because somebody asked for nonsense."""
KEPT_MANIFESTS = 2048


class Reading:
    """The part of `Registry` that the others build on. What never changes (records, manifests) is read once."""

    def __init__(self, store: Store, cache: Cache, trust: Trust | None = None) -> None:
        self._store = store
        self._cache = cache
        self._trust = trust or Trust()
        self._revision_logs: dict[str, NumberedLog] = {}
        self._alias_logs: dict[tuple[str, str], AliasLog] = {}
        self._manifests: dict[str, Manifest] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    def resolve(self, reference: str | Reference, *, caller: str = "") -> Revision:
        """The revision that a reference names now: bare `name` is `@prod` if that alias exists, else `@latest`.

        A weighted alias gives each `caller` the revision drawn for it (`AliasEntry.draw`), and without a caller the one
        with the largest share. Raises NotFoundError with what exists instead, InvalidError for a malformed reference,
        DamagedError.
        """
        if isinstance(reference, str):
            reference = Reference.parse(reference)
        name = reference.name
        log = self._log(name)
        if not log.last():
            raise self._no_name(name)
        if reference.revision is not None:
            return self._revision(name, reference.revision)
        if reference.digest is not None:
            for number in log.numbers():
                if log.read(number)["digest"] == reference.digest:
                    return self._revision(name, number)
            raise NotFoundError(f"{name} has no revision with digest {reference.digest}", reason="REVISION_NOT_FOUND")
        if reference.alias not in (None, LATEST):
            assert reference.alias is not None
            entry = self._alias(name, reference.alias).current()
            if entry is None:
                known = ", ".join(self.aliases(name)) or "none"
                raise NotFoundError(
                    f"{name} has no alias {reference.alias!r} (aliases: {known}; `latest` always works)",
                    reason="ALIAS_NOT_FOUND",
                )
            return self._revision(name, entry.draw(caller).revision)
        entry = self._alias(name, PROD).current() if reference.alias is None else None
        return self._revision(name, entry.draw(caller).revision if entry else log.last())

    @property
    def remote(self) -> bool:
        """Whether it is reached by requests, so that several at once are worth while."""
        return self._store.remote

    def newest(self, name: str) -> Revision:
        """What `name@latest` names. Raises NotFoundError, DamagedError."""
        last = self._log(check_name(name)).last()
        if not last:
            raise self._no_name(name)
        return self._revision(name, last)

    def names(self) -> list[str]:
        """All names that have a revision, sorted."""
        return self._store.folders(layout.REVISIONS)

    def revisions(self, name: str) -> list[Revision]:
        """All revisions of a name, oldest first. Raises NotFoundError."""
        numbers = self._log(check_name(name)).numbers()
        if not numbers:
            raise self._no_name(name)
        return [self._revision(name, number) for number in numbers]

    def record(self, revision: Revision) -> dict[str, object]:
        """The revision's record: `digest`, `kind`, `author`, `reason`, `create_time`."""
        return dict(self._log(revision.name).read(revision.number))

    def aliases(self, name: str) -> dict[str, AliasEntry]:
        """The aliases of a name and where they point; empty if it has none."""
        found = {}
        for alias in self._store.folders(layout.aliases(check_name(name))):
            entry = self._alias(name, alias).current()
            if entry is not None:
                found[alias] = entry
        return found

    def _check_known(self, name: str) -> None:
        """Raise NotFoundError unless the name has a revision."""
        if not self._log(name).last():
            raise self._no_name(name)

    def _revision(self, name: str, number: int) -> Revision:
        log = self._log(name)
        try:
            digest = str(log.read(number)["digest"])
        except NotFoundError:
            raise self._retired(name, number) from None
        return Revision(name, number, digest, self._manifest(digest, f"{name}@{number}"))

    def _within(self, name: str, target: str) -> Revision:
        text = target if "@" in target else f"{check_name(name)}@{target}"
        reference = Reference.parse(text)
        if reference.name != name:
            raise InvalidError(f"{text} is not a revision of {name}: an alias stays within its name", field="target")
        return self.resolve(reference)

    def _retired(self, name: str, number: int) -> NotFoundError:
        if self._store.size(layout.retired(name, number)) is not None:
            return NotFoundError(
                f"{name}@{number} was removed by a garbage collection; the latest is {self._log(name).last()}",
                reason="REVISION_RETIRED",
            )
        return NotFoundError(
            f"{name} has no revision {number}; the latest is {self._log(name).last()}", reason="REVISION_NOT_FOUND"
        )

    def _manifest(self, digest: str, what: str) -> Manifest:
        manifest = self._manifests.get(digest)
        if manifest is None:
            key = layout.manifest(digest)
            try:
                content = self._store.get(key)
            except NotFoundError:
                raise NotFoundError(
                    f"the manifest of {what} is missing: {key} is not in {self.url}; run `loradeck registry verify`",
                    reason="MISSING_OBJECT",
                    metadata={"object": key},
                ) from None
            if digest_of(content) != digest:
                raise damaged(f"the manifest of {what}", key, self.url)
            manifest = remember(self._manifests, digest, parse_manifest(content, what), KEPT_MANIFESTS)
        return manifest

    def _log(self, name: str) -> NumberedLog:
        log = self._revision_logs.get(name)
        if log is None:
            log = NumberedLog(self._store, layout.revisions(name), RevisionRecord)
            remember(self._revision_logs, name, log, KEPT_LOGS)
        return log

    def _alias(self, name: str, alias: str) -> AliasLog:
        log = self._alias_logs.get((name, alias))
        if log is None:
            log = AliasLog(self._store, name, alias)
            remember(self._alias_logs, (name, alias), log, KEPT_LOGS)
        return log

    def _no_name(self, name: str) -> NotFoundError:
        names = self.names()
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(nearest)}?"
            if nearest
            else f"{self.url} holds {len(names)} name{'s' * (len(names) != 1)}"
        )
        return NotFoundError(
            f"no adapter, checkpoint or base named {name!r} in the registry; {hint}", reason="NAME_NOT_FOUND"
        )

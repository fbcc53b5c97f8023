"""Looking after what is published: attachments, leases, verification and garbage collection."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from loradeck_registry import attachments, changes, layout
from loradeck_registry.aliases.log import caller as this_process
from loradeck_registry.attachments import Attachment, AttachmentKind
from loradeck_registry.collection import leases
from loradeck_registry.collection.collecting import GRACE, WAIT, CollectReport, collect
from loradeck_registry.collection.leases import Lease
from loradeck_registry.collection.retention import Retention
from loradeck_registry.contents import stored_bytes
from loradeck_registry.errors import NotFoundError
from loradeck_registry.parts.reading import Reading
from loradeck_registry.revision import Revision
from loradeck_registry.verify import VerifyReport, verify_store


class Stewardship(Reading):
    """The part of `Registry` that looks after revisions once they are published."""

    def attach(
        self, revision: Revision, kind: AttachmentKind, content: Mapping[str, Any], *, who: str = ""
    ) -> Attachment:
        """Add an evaluation, tag, note or signature to a revision; its digest stays what it is."""
        added = attachments.attach(self._store, revision.digest, kind, content, who=who)
        changes.mark(self._store, revision.name)
        return added

    def attachments(self, revision: Revision, kind: AttachmentKind) -> list[Attachment]:
        """What was attached to a revision, oldest first."""
        return attachments.attached(self._store, revision.digest, kind)

    def tag(self, revision: Revision, tag: str, *, remove: bool = False, who: str = "") -> None:
        """Put a tag on a revision, or take it off. Raises InvalidError for a malformed tag."""
        self.attach(revision, "tag", {"tag": attachments.check_tag(tag), "removed": remove}, who=who)

    def tags(self, revision: Revision) -> list[str]:
        """The tags of a revision, sorted."""
        return attachments.tags(self._store, revision.digest)

    def metrics(self, revision: Revision) -> dict[str, float]:
        """The newest value of each metric that evaluations of this revision state."""
        return attachments.metrics(self._store, revision.digest)

    def hold(self, digests: Iterable[str], holder: str = "", ttl: float = leases.TTL) -> Lease:
        """Keep revisions, by manifest digest, from garbage collection for `ttl` seconds, again with each `renew`.

        Returns when that is in force, which may take as long as a deletion that is going on. Whoever uses a revision
        for long, a server above all, takes its lease before it fetches the files, renews it every third of `ttl`, and
        releases it at the end. Raises NotFoundError (REVISION_GONE) if a revision was collected meanwhile.
        """
        lease = leases.take(self._store, holder or this_process(), digests, ttl=ttl)
        for digest in lease.manifests:
            if self._store.size(layout.manifest(digest)) is None:
                lease.release()
                raise NotFoundError(f"the registry has no revision {digest} any more", reason="REVISION_GONE")
        return lease

    def verify(self) -> VerifyReport:
        """Read everything, and name what is damaged, missing or used by nothing."""
        with self._cache.sources(self._store) as sources:
            return verify_store(self._store, sources)

    def stored_files(self, revision: Revision) -> dict[str, int]:
        """Bytes that the store keeps of each file, by its digest: all of it, or its difference to other files.

        Raises NotFoundError if it has none of it.
        """
        return {file.sha256: stored_bytes(self._store, file) for file in revision.manifest.files}

    def collect(
        self,
        *,
        delete: bool = False,
        retention: Retention | None = None,
        grace: timedelta = GRACE,
        wait: float = WAIT,
    ) -> CollectReport:
        """Find what nothing needs, and with `delete` announce it, wait, look again and delete it."""
        return collect(self._store, delete=delete, retention=retention, grace=grace, wait=wait)

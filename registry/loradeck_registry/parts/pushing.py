"""Pushing: files first, then the manifest, then the revision under the next free number."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loradeck_registry import changes
from loradeck_registry.aliases.log import caller as this_process
from loradeck_registry.collection import leases
from loradeck_registry.delta.packing import Packer
from loradeck_registry.delta.sources import choose_sources
from loradeck_registry.errors import ConflictError, InvalidError, PreconditionError
from loradeck_registry.files import check_file
from loradeck_registry.manifest import Manifest
from loradeck_registry.parts.pointing import Pointing
from loradeck_registry.parts.uploading import Upload
from loradeck_registry.reference import check_alias, check_name
from loradeck_registry.revision import FORMAT, Revision
from loradeck_registry.secrets import check_no_secret
from loradeck_registry.stores.store import Progress

_ATTEMPTS = 1000


class Pushing(Pointing):
    """The part of `Registry` that takes revisions in."""

    def push(
        self,
        name: str,
        manifest: Manifest,
        files: Mapping[str, Path],
        *,
        alias: str | None = None,
        author: str | None = None,
        reason: str = "",
        base_folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Revision:
        """Store files, then the manifest, then the revision under the next free number; then move `alias` to it.

        `files` gives the local file for each path in the manifest; files that are there already, from a broken-off push
        too, are not sent again. Weights of a full checkpoint are stored as differences to those of its base where that
        wins; `base_folder` is a local folder of the base, if one is at hand. `progress` is told the bytes of each chunk
        of a file that is done with, however few were sent, from any thread. Pushing the manifest of the newest revision
        again returns that revision. Raises InvalidError (bad name, file refused, SECRET), PreconditionError (file
        differs from the manifest, KIND_CHANGED, GATE_FAILED for a protected `alias`, not writable). Whatever fails,
        readers never see part of a revision.
        """
        check_name(name)
        if alias is not None:
            check_alias(alias)
        if set(files) != {file.path for file in manifest.files}:
            odd = sorted(set(files) ^ {file.path for file in manifest.files})
            raise InvalidError(f"manifest and files differ: {', '.join(odd)}", field="files")
        self._check_kind(name, manifest)
        check_no_secret(manifest.model_dump(mode="json", exclude={"files"}), "manifest")
        check_no_secret([author, reason], "record")
        for file in manifest.files:
            check_file(file.path, files[file.path])
        digest = manifest.digest()
        blobs = {file.sha256 for file in manifest.files}
        with (
            leases.take(self._store, f"push-{this_process()}", [digest], blobs) as lease,
            self._packer(name, manifest, base_folder) as packer,
        ):
            Upload(self._store, manifest, files, packer, lease, progress).run()
            revision = self._push_revision(name, manifest, digest, author or manifest.author or this_process(), reason)
        if alias is not None:
            try:
                self.move_alias(name, alias, str(revision.number), who=author or "", why=reason or "published")
            except PreconditionError as error:
                # What is published stays, and who pushes again must know that it is there.
                raise PreconditionError(
                    f"{revision} is published, {name}@{alias} was not moved: {error.message}",
                    reason=error.reason,
                    metadata=error.metadata,
                ) from error
        return revision

    @contextmanager
    def _packer(self, name: str, manifest: Manifest, base_folder: Path | None) -> Iterator[Packer | None]:
        if manifest.kind != "full":
            yield None
            return
        with self._cache.aside() as scratch, self._cache.sources(self._store) as copies:
            yield Packer(scratch, lambda: choose_sources(self, self._store, copies, name, manifest, base_folder))

    def _push_revision(self, name: str, manifest: Manifest, digest: str, author: str, reason: str) -> Revision:
        record = {
            "format": FORMAT,
            "digest": digest,
            "kind": manifest.kind,
            "author": author,
            "reason": reason,
            "create_time": datetime.now(UTC).isoformat(),
        }
        log = self._log(name)
        for attempt in range(_ATTEMPTS):
            last = log.last()
            if last and log.read(last)["digest"] == digest:
                return Revision(name, last, digest, manifest)
            self._check_kind(name, manifest)
            changes.mark(self._store, name)
            if log.append(last + 1, record):
                return Revision(name, last + 1, digest, manifest)
            time.sleep(min(0.001 * attempt, 0.05))
        raise ConflictError(f"too many writers push {name} at once; try again")

    def _check_kind(self, name: str, manifest: Manifest) -> None:
        log = self._log(name)
        if (last := log.last()) and log.read(last)["kind"] != manifest.kind:
            raise PreconditionError(
                f"{name} holds revisions of kind {log.read(last)['kind']}, this one is of kind {manifest.kind}: "
                "choose another name",
                reason="KIND_CHANGED",
                field="name",
            )

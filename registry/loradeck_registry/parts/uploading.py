"""The upload of one push: every file, whole or as a difference, and the manifest; again if its lease ever ended."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loradeck_registry import layout
from loradeck_registry.collection.leases import Lease
from loradeck_registry.contents import is_stored
from loradeck_registry.delta.packing import Packed, Packer
from loradeck_registry.errors import PreconditionError, UnavailableError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import File, Manifest
from loradeck_registry.stores.store import Progress, Store

_UPLOADS = 3


class Upload:
    """One push's files on their way. `lease` names the manifest and its files, and is in force."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        files: Mapping[str, Path],
        packer: Packer | None,
        lease: Lease,
        progress: Progress | None,
    ) -> None:
        """`packer` makes deltas where it is given."""
        self._store = store
        self._manifest = manifest
        self._files = files
        self._packer = packer
        self._lease = lease
        self._progress = progress
        self._told: set[str] = set()

    def run(self) -> None:
        """Store all. Should the lease ever have ended on the way, what is there is looked at again.

        Raises PreconditionError (FILE_CHANGED), UnavailableError.
        """
        digest = self._manifest.digest()
        first = {file.sha256: file for file in self._manifest.files}
        for _ in range(_UPLOADS):
            with ThreadPoolExecutor(self._store.files_at_once) as pool:
                tasks = [pool.submit(self._push_file, file) for file in first.values()]
            for task in tasks:
                task.result()
            for file in self._manifest.files:
                if first[file.sha256] is not file and sha256_of(self._files[file.path]) != file.sha256:
                    raise _file_changed(self._files[file.path])
            self._store.put_if_absent(layout.manifest(digest), self._manifest.canonical_json())
            if self._lease.in_force():
                return
            self._lease.renew()
        raise UnavailableError(f"the push of {self._manifest.kind} files was interrupted again and again; try again")

    def _push_file(self, file: File) -> None:
        path = self._files[file.path]
        if is_stored(self._store, file.sha256, file.size):
            if sha256_of(path) != file.sha256:
                raise _file_changed(path)
            self._done(file, file.size)
            return
        packed = self._packer.pack(file, path) if self._packer is not None else None
        if packed is not None and self._push_delta(file, packed):
            self._done(file, file.size)
            return
        self._store.put_file(layout.blob(file.sha256), path, file.sha256, file.size, self._sent)

    def _push_delta(self, file: File, packed: Packed) -> bool:
        """Body first, then the record; False if what it is made from has gone, or an older record is in the way."""
        record = packed.record
        self._lease.extend(blobs=record.blobs)
        if any(self._store.size(layout.blob(source.sha256)) != source.size for source in record.sources):
            return False
        key = layout.blob(record.body.sha256)
        if self._store.size(key) != record.body.size:
            self._store.put_file(key, packed.body, record.body.sha256, record.body.size, self._kept)
        self._store.put_if_absent(layout.delta(file.sha256), record.model_dump_json(exclude_none=True).encode())
        return is_stored(self._store, file.sha256, file.size)

    def _kept(self, size: int) -> None:
        self._lease.touch()

    def _sent(self, size: int) -> None:
        self._lease.touch()
        if self._progress is not None:
            self._progress(size)

    def _done(self, file: File, size: int) -> None:
        """Tell of a file that needed no sending, once."""
        if file.sha256 not in self._told and self._progress is not None:
            self._told.add(file.sha256)
            self._progress(size)


def _file_changed(source: Path) -> PreconditionError:
    return PreconditionError(
        f"{source.name} is not the file that the manifest describes", reason="FILE_CHANGED", field="files"
    )

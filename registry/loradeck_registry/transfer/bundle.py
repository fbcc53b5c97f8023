"""Bundles: one tar file with a revision's manifest and files, verified when it is read, for moves without a network."""

import io
import json
import os
import tarfile
import uuid
from pathlib import Path

from loradeck_registry.cache import scratch_folder
from loradeck_registry.errors import DamagedError, InvalidError, NotFoundError, PreconditionError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import Manifest, digest_of
from loradeck_registry.registry import Registry, Revision, parse_manifest

_HEAD = "bundle.json"
_MANIFEST = "manifest.json"
_LIMIT = 64 << 20
"""Most bytes of a bundle's head or manifest."""


def write_bundle(registry: Registry, revision: Revision, destination: Path) -> None:
    """Write the tar file `destination`, which must not exist. Equal revisions give equal bytes.

    Raises PreconditionError if it exists or cannot be written, DamagedError.
    """
    if destination.exists():
        raise PreconditionError(f"{destination} exists already", reason="NOT_EMPTY")
    folder = registry.local(revision)
    part = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}.part")
    head = {"format": 1, "name": revision.name, "revision": revision.number, "digest": revision.digest}
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(part, "x", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, _HEAD, json.dumps(head, sort_keys=True).encode())
            _add(archive, _MANIFEST, revision.manifest.canonical_json())
            for file in revision.manifest.files:
                member = tarfile.TarInfo(f"files/{file.path}")
                member.size = file.size
                with (folder / file.path).open("rb") as content:
                    archive.addfile(member, content)
        os.link(part, destination)
    except FileExistsError as error:
        raise PreconditionError(f"{destination} exists already", reason="NOT_EMPTY") from error
    except OSError as error:
        raise PreconditionError(f"cannot write {destination}: {error.strerror}", reason="NOT_PERMITTED") from error
    finally:
        part.unlink(missing_ok=True)


def read_bundle(
    registry: Registry, source: Path, name: str | None = None, *, alias: str | None = None, author: str | None = None
) -> Revision:
    """Push the revision in a bundle under its own name, or `name`. Its digest stays what it was.

    Nothing is written outside the cache and the registry whatever the tar file holds. Raises NotFoundError,
    InvalidError (no bundle), DamagedError (content that is not what the manifest says), and what
    `Registry.push` raises.
    """
    if not source.is_file():
        raise NotFoundError(f"no bundle {source}", field="source")
    try:
        with tarfile.open(source, "r:") as archive, scratch_folder() as scratch:
            head, manifest = _read_head(archive, source)
            _check_members(archive, manifest, source)
            files = {}
            for file in manifest.files:
                target = scratch / file.sha256
                _take(archive, f"files/{file.path}", target, source)
                if target.stat().st_size != file.size or sha256_of(target) != file.sha256:
                    raise DamagedError(f"{file.path} in the bundle {source.name} is damaged; fetch the bundle again")
                files[file.path] = target
            return registry.push(
                name or str(head["name"]),
                manifest,
                files,
                alias=alias,
                author=author,
                reason=f"from bundle {source.name}",
            )
    except tarfile.TarError as error:
        raise InvalidError(f"{source.name} is not a bundle, or is cut short: {error}", field="source") from error


def _read_head(archive: tarfile.TarFile, source: Path) -> tuple[dict[str, object], Manifest]:
    try:
        head = json.loads(_small(archive, _HEAD, source))
        digest = head["digest"]
        head["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"{source.name} is not a bundle: its head cannot be read", field="source") from error
    if head.get("format") != 1:
        raise PreconditionError(f"the bundle {source.name} has format {head.get('format')}: upgrade loradeck")
    content = _small(archive, _MANIFEST, source)
    if digest_of(content) != digest:
        raise DamagedError(f"the manifest in the bundle {source.name} is damaged; fetch the bundle again")
    return head, parse_manifest(content, f"the bundle {source.name}")


def _check_members(archive: tarfile.TarFile, manifest: Manifest, source: Path) -> None:
    known = {_HEAD, _MANIFEST, *(f"files/{file.path}" for file in manifest.files)}
    odd = sorted({member.name for member in archive.getmembers()} - known)
    if odd:
        raise InvalidError(
            f"{source.name} holds {odd[0]}, which its manifest does not name: it was changed after it was written",
            field="source",
        )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _member(archive: tarfile.TarFile, name: str, source: Path) -> tarfile.TarInfo:
    try:
        member = archive.getmember(name)
    except KeyError:
        raise InvalidError(f"{source.name} is not a whole bundle: it has no {name}", field="source") from None
    if not member.isreg():
        raise InvalidError(f"{name} in the bundle {source.name} is not a plain file", field="source")
    return member


def _small(archive: tarfile.TarFile, name: str, source: Path) -> bytes:
    member = _member(archive, name, source)
    content = archive.extractfile(member)
    if content is None or member.size > _LIMIT:
        raise InvalidError(f"{name} in the bundle {source.name} cannot be read", field="source")
    return content.read()


def _take(archive: tarfile.TarFile, name: str, target: Path, source: Path) -> None:
    content = archive.extractfile(_member(archive, name, source))
    assert content is not None
    with target.open("wb") as out:
        while chunk := content.read(4 << 20):
            out.write(chunk)

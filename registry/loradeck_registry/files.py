"""Files on their way into a revision: what may be pushed, and how it is described."""

import re
from collections.abc import Mapping
from pathlib import Path

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import File
from loradeck_registry.weights import Weights, check_no_empty_tensor

_PICKLE_NAMES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack", ".h5"}
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def describe(files: Mapping[str, Path]) -> tuple[File, ...]:
    """The manifest's `files` for local files by their path in the revision, each checked with `check_file`."""
    found = []
    for path in sorted(files):
        check_file(path, files[path])
        found.append(File(path=path, sha256=sha256_of(files[path]), size=files[path].stat().st_size))
    return tuple(found)


def folder_files(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its path in it; hidden files and folders are left out.

    Raises NotFoundError if there is no such folder, InvalidError for a symbolic link or an odd name.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder}", field="folder")
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if path.is_symlink():
            raise _symlink(str(relative))
        if path.is_file():
            found[relative.as_posix()] = path
    if not found:
        raise InvalidError(f"{folder} holds no files", field="folder")
    return found


def check_file(path: str, source: Path) -> None:
    """Raise unless `source` may become the file `path` of a revision.

    Refused with InvalidError: a bad path, a symbolic link, a pickle by name or content, a .safetensors file that is not
    one, is cut short, or holds an empty tensor. NotFoundError if the file is absent.
    """
    if not _PATH.fullmatch(path):
        raise InvalidError(
            f"bad file path {path[:120]!r}: use relative paths of a-z A-Z 0-9 . _ - parts",
            reason="BAD_PATH",
            field="files",
        )
    if source.is_symlink():
        raise _symlink(path)
    if not source.is_file():
        raise NotFoundError(f"no file {source}", field="files")
    if Path(path).suffix.lower() in _PICKLE_NAMES:
        raise _pickle(path)
    if path.endswith(".safetensors"):
        check_no_empty_tensor(Weights(source))
        return
    with source.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise _pickle(path)


def _pickle(path: str) -> InvalidError:
    return InvalidError(
        f"{path} may hold a pickle, which can run code: only safetensors weights are taken; convert it first",
        reason="PICKLE",
        field="files",
    )


def _symlink(path: str) -> InvalidError:
    return InvalidError(
        f"{path} is a symbolic link: only plain files are taken; copy the file in", reason="SYMLINK", field="files"
    )

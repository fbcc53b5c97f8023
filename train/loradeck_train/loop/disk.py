"""Writing that survives a kill and a power cut, and errors of a full or locked disk in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loradeck_registry.errors import PreconditionError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Turn the errors of writing `what` into PreconditionError (DISK_FULL, NOT_WRITABLE); other errors pass.

    torch and safetensors wrap the system's error in their own: what they wrap is told from the free space.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(what, folder, str(error.strerror)) from error
        if error.errno in _LOCKED:
            raise PreconditionError(
                f"cannot write {what} in {folder}: {error.strerror}; choose another --output", reason="NOT_WRITABLE"
            ) from error
        raise
    except Exception as error:
        said = str(error)
        if (
            "No space left" in said
            or "File too large" in said
            or "write failed" in said.lower()
            or ("PytorchStreamWriter failed" in said or "unexpected pos" in said)
        ):
            raise _full(what, folder, said.splitlines()[0][:120]) from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring every file below `folder`, and the folders themselves, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _full(what: str, folder: Path, said: str) -> PreconditionError:
    return PreconditionError(
        f"cannot write {what} in {folder}: {said}; free some space, then continue with --resume, or choose another "
        "--output",
        reason="DISK_FULL",
        field="output",
    )

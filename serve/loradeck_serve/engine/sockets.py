"""A folder of its own for each engine's sockets: what a killed engine leaves behind is known, and removed later.

vLLM puts its sockets straight into the temporary folder, and a process that is killed removes none.
"""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "VLLM_RPC_BASE_PATH"
"""Where vLLM puts its sockets, in every process of an engine."""

PREFIX = "loradeck-engine-"
LOCK = "owner"
LONGEST_PATH = 107
"""Bytes that the path of a Unix socket can have."""

NAME_LENGTH = 36
"""Length of the names that vLLM gives to its sockets."""

SETTLED_SECONDS = 60.0
"""A folder younger than this may belong to an owner that has not locked it yet."""


class SocketFolder:
    """A folder that belongs to this process for as long as it holds the lock on a file in it.

    The kernel lets go of the lock when the process ends, however it ends. `path` is None where the temporary folder's
    own path is so long that a socket in a folder below it would not fit: vLLM's default applies then.
    """

    def __init__(self) -> None:
        """Make the folder, and remove those whose owners are gone."""
        remove_abandoned()
        self.path: Path | None = None
        self._lock = -1
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        if len(os.fsencode(folder)) + 1 + NAME_LENGTH > LONGEST_PATH:
            folder.rmdir()
            return
        self._lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = folder

    def environment(self) -> dict[str, str]:
        """What the engine's processes, and this one while it starts them, must have set."""
        return {} if self.path is None else {VARIABLE: str(self.path)}

    def remove(self) -> None:
        """Remove the folder with what is in it. Idempotent."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self.path = None


def remove_abandoned() -> None:
    """Remove this user's folders whose owners have ended without removing them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.stat(follow_symlinks=False)
            if status.st_uid != os.getuid() or time.time() - status.st_ctime < SETTLED_SECONDS:
                continue
            lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)

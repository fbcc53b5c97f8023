"""Checkpoints that are either whole or not there: written aside, synced, listed last, then renamed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from loradeck_train.loop.disk import sync_folder, writing

SEAL = "complete.json"
"""Lists a checkpoint's files with their bytes; written after all of them."""
_PREFIX = "checkpoint-"
_ASIDE = ".writing-"


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder beside `folder`'s checkpoints, then make it the checkpoint of `step`.

    A kill at any moment leaves the earlier checkpoints as they are and at most a folder that nobody reads. Raises
    PreconditionError (DISK_FULL, NOT_WRITABLE); what was written so far is removed.
    """
    final, aside = folder / f"{_PREFIX}{step}", folder / f"{_ASIDE}{step}"
    try:
        with writing("a checkpoint", folder):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            write(aside)
            sync_folder(aside)
            files = {p.relative_to(aside).as_posix(): p.stat().st_size for p in sorted(aside.rglob("*")) if p.is_file()}
            (aside / SEAL).write_text(json.dumps({"step": step, "files": files}, indent=1) + "\n")
            sync_folder(aside)
            if final.exists():
                shutil.rmtree(final)
            os.replace(aside, final)
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def complete_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in `folder`, oldest first: every file that the seal lists is there with its bytes."""
    found = [
        (int(path.name.removeprefix(_PREFIX)), path)
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdigit() and _is_whole(path)
    ]
    return [path for _, path in sorted(found)]


def keep_newest(folder: Path, count: int, best: Path | None = None) -> None:
    """Remove all but the `count` newest checkpoints and `best`, and what a kill left half-written."""
    kept = set(complete_checkpoints(folder)[-count:]) | ({best} if best else set())
    for path in [*folder.glob(f"{_PREFIX}*"), *folder.glob(f"{_ASIDE}*")]:
        if path not in kept:
            # The seal goes first: a removal cut short must not leave something that looks whole.
            (path / SEAL).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _is_whole(path: Path) -> bool:
    try:
        listed = json.loads((path / SEAL).read_bytes())["files"]
        return all((path / name).stat().st_size == size for name, size in listed.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False

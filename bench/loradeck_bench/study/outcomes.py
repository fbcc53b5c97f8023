"""What was done: one file per step, named by the digest of the step's inputs, whole or not there."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """A step that was done. `seconds` is its own time; `wall_seconds` what the study took for it, so that steps side by
    side add up to the time that passed, and a server's start counts for the first evaluation on it."""

    digest: str
    result: Mapping[str, Any]
    seconds: float
    wall_seconds: float
    created: str


class Outcomes:
    """Outcomes in a folder. A changed step leaves the outcome of its former inputs there: going back costs nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, step: str, digest: str) -> Outcome | None:
        """The outcome of a step (`runs/NAME`) with these inputs, None if it has not been done or cannot be read."""
        try:
            return Outcome(**json.loads(self._path(step, digest).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, step: str, outcome: Outcome) -> None:
        """Keep an outcome: written aside, brought to the disk, renamed."""
        path = self._path(step, outcome.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.part")
        with aside.open("w", encoding="utf-8") as out:
            json.dump(asdict(outcome), out, indent=1, ensure_ascii=False)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)

    def last_seconds(self, step: str) -> float | None:
        """How long the step took when it was last done, whatever its inputs were."""
        found = [self._read(path) for path in sorted(self._path(step, "").parent.glob("*.json"))]
        done = sorted((one for one in found if one is not None), key=lambda one: one.created)
        return done[-1].seconds if done else None

    def _path(self, step: str, digest: str) -> Path:
        return self._folder / step / f"{digest}.json"

    @staticmethod
    def _read(path: Path) -> Outcome | None:
        try:
            return Outcome(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

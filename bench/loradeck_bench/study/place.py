"""Where a study works: folders by study and scale, so that its steps are found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from loradeck_bench.study.files import Scale
from loradeck_registry.errors import PreconditionError

WORK = Path("build/studies")
"""Where studies work unless told otherwise."""


@dataclass(frozen=True)
class Place:
    """Folders of one study at one scale below `work`. The data folder is shared by both scales."""

    work: Path
    study: str
    scale: Scale

    @property
    def data(self) -> Path:
        """What `loradeck study data` brought: a folder per data set."""
        return self.work / self.study / "data"

    @property
    def root(self) -> Path:
        """Everything that the study writes at this scale, its report included."""
        return self.work / self.study / self.scale

    @property
    def registry(self) -> Path:
        """Folder of the study's registry."""
        return self.root / "registry"

    @property
    def outcomes(self) -> Path:
        """One file per step that was done."""
        return self.root / "outcomes"

    @property
    def logs(self) -> Path:
        """One log per child process."""
        return self.root / "logs"

    def training(self, run: str, digest: str) -> Path:
        """Output folder of a training: another one whenever its inputs change."""
        return self.root / "training" / f"{run}-{digest[:12]}"

    def answers(self, evaluation: str, digest: str) -> Path:
        """Result file of an evaluation, with every answer."""
        return self.root / "evaluations" / digest[:12] / f"{evaluation}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a second run of the same study out. Raises PreconditionError if there is one, or if the folder cannot
        be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock", timeout=0):
                yield
        except Timeout:
            raise PreconditionError(f"another run of this study works in {self.root}", reason="STUDY_RUNS") from None
        except OSError as error:
            if error.filename is None or not str(error.filename).startswith(str(self.root)):
                raise
            raise PreconditionError(f"cannot write to {self.root}: {error.strerror}", reason="NOT_WRITABLE") from None

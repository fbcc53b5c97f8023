"""Brings data sets into a study's place: staged, checked, and moved there whole or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from loradeck_bench.study.data.catalog import DataFile, DataSet, sets_of
from loradeck_bench.study.data.check import Checked, check_file
from loradeck_registry.errors import NotFoundError

RECORD = "SOURCE.json"
"""What a set's folder says of its origin."""


@dataclass(frozen=True)
class Placed:
    """A set that is in its place."""

    name: str
    what: str
    licence: str
    origin: str
    files: tuple[Checked, ...]


def find_folder(source: Path, name: str, data: DataSet, *, itself: bool) -> Path | None:
    """Where `source` has the set: in a folder of one of its names, or in `source`, if that has such a name or with
    `itself`; None if nowhere whole."""
    names = (name, *data.folders)
    places = [source / other for other in names]
    if itself or source.resolve().name in names:
        places.append(source)
    for folder in places:
        if all(file.optional or locate(folder, one, file) for one, file in data.files.items()):
            return folder
    return None


def locate(folder: Path, name: str, file: DataFile) -> Path | None:
    """The file of a set in `folder`, under any of its names."""
    return next((path for other in (name, *file.names) if (path := folder / other).is_file()), None)


def bring(study: str, source: Path, into: Path, *, only: tuple[str, ...] = (), other: bool = False) -> list[Placed]:
    """Copy what `source` has of the study's sets (or of those named `only`) to folders below `into`.

    Raises NotFoundError if it has none of them, and what `check_file` raises; sets before that one are in place.
    """
    wanted = chosen(study, only)
    found = {
        name: folder
        for name, data in wanted.items()
        if (folder := find_folder(source, name, data, itself=len(only) == 1))
    }
    if not found:
        names = "; ".join(f"{name}: {', '.join(data.files)}" for name, data in wanted.items())
        raise NotFoundError(
            f"{source} has none of the data of {study}: it needs a folder per set with its files ({names}), or is the "
            "folder of one that --set names"
        )

    def copy(folder: Path) -> Callable[[str, DataFile, Path], bool]:
        def get(name: str, file: DataFile, target: Path) -> bool:
            path = locate(folder, name, file)
            if path is not None:
                shutil.copyfile(path, target)
            return path is not None

        return get

    return [
        put(into, name, wanted[name], f"folder {folder.name}", copy(folder), other=other)
        for name, folder in found.items()
    ]


def put(
    into: Path,
    name: str,
    data: DataSet,
    origin: str,
    get: Callable[[str, DataFile, Path], bool],
    *,
    other: bool = False,
) -> Placed:
    """Make the folder of a set. `get(name, file, target)` writes one file, and says whether it could. What was in the
    place before is replaced when all is checked. Raises what `check_file` and `get` raise."""
    stage = into / f".{name}.part"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        checked = []
        for one, file in data.files.items():
            if get(one, file, stage / one):
                checked.append(check_file(stage / one, file, other=other))
        placed = Placed(name, data.what, data.licence, origin, tuple(checked))
        (stage / RECORD).write_text(json.dumps(asdict(placed), indent=1) + "\n", encoding="utf-8")
        _swap(stage, into / name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return placed


def chosen(study: str, only: tuple[str, ...]) -> dict[str, DataSet]:
    """The sets of a study, or those named. Raises NotFoundError."""
    sets = sets_of(study)
    for name in only:
        if name not in sets:
            raise NotFoundError(f"{study} has no data set {name!r}: there are {', '.join(sets)}")
    return {name: data for name, data in sets.items() if not only or name in only}


def there(into: Path, name: str, data: DataSet) -> bool:
    """Whether a set is in its place."""
    return all(file.optional or (into / name / one).is_file() for one, file in data.files.items())


def how_to_get(study: str, name: str, data: DataSet) -> str:
    """One line for people."""
    if not data.public:
        return data.get or f"loradeck study data {study} --from DIR"
    return f"loradeck study data {study} --from DIR, or --fetch --set {name}"


def _swap(stage: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    stage.rename(target)
    shutil.rmtree(old, ignore_errors=True)

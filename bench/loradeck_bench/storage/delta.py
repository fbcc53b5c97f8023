"""Delta storage measured: what a full checkpoint takes in a registry, and how fast it is read back bit for bit."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import loradeck_pocket
from loradeck_bench.children import Child
from loradeck_bench.extra import TRAINING, require
from loradeck_registry.bases.resolve import add_base
from loradeck_registry.registry import Registry, Revision

_CHUNK = 4 << 20


@dataclass(frozen=True)
class DeltaFigures:
    """A checkpoint in a registry, its weight files only. Speeds are of a pull, digests checked and written to disk."""

    checkpoint: str
    base: str
    raw_bytes: int
    stored_bytes: int
    ratio: float
    bit_exact: bool
    read_seconds: float
    read_bytes_per_second: float
    plain_bytes_per_second: float
    """The same of the base's weights, which are stored whole."""


def measure_delta(registry: Registry, revision: Revision) -> DeltaFigures | None:
    """Read a checkpoint that is stored as a delta, as a machine does that has never seen it; None if it is not one."""
    weights = [file for file in revision.manifest.files if file.path.endswith(".safetensors")]
    stored = registry.stored_files(revision)
    raw, kept = sum(file.size for file in weights), sum(stored[file.sha256] for file in weights)
    if kept == raw:
        return None
    with tempfile.TemporaryDirectory(prefix="loradeck-storage-") as name:
        folder = Path(name)
        fresh = Registry.open(registry.url, cache=folder / "cache")
        seconds = _seconds(lambda: fresh.pull(revision, folder / "delta"))
        exact = all(_digest(folder / "delta" / file.path) == file.sha256 for file in weights)
        base = _whole(fresh)
        plain = _seconds(lambda: fresh.pull(base, folder / "whole")) if base is not None else 0.0
    return DeltaFigures(
        checkpoint=str(revision),
        base=revision.manifest.base.reference,
        raw_bytes=raw,
        stored_bytes=kept,
        ratio=kept / raw,
        bit_exact=exact,
        read_seconds=seconds,
        read_bytes_per_second=revision.manifest.size / seconds,
        plain_bytes_per_second=base.manifest.size / plain if base is not None and plain else 0.0,
    )


def newest_delta(registry: Registry) -> DeltaFigures | None:
    """The figures of the newest full checkpoint that is stored as a delta, None if the registry has none."""
    full = [registry.newest(name) for name in registry.names()]
    full = [revision for revision in full if revision.manifest.kind == "full"]
    for revision in sorted(full, key=lambda revision: revision.manifest.create_time, reverse=True):
        if (found := measure_delta(registry, revision)) is not None:
            return found
    return None


def pocket_delta(steps: int | None, say: Callable[[str], None]) -> DeltaFigures | None:
    """Train all parameters of the pocket base on the classification set, publish, and measure.

    `steps` of the optimizer, None for the whole recipe. Raises PreconditionError without the packages that training
    needs, ChildFailedError.
    """
    require(TRAINING)
    with tempfile.TemporaryDirectory(prefix="loradeck-storage-") as name:
        folder = Path(name)
        environment = {"LORADECK_CACHE": str(folder / "cache")}
        registry = Registry.init(folder / "registry", cache=folder / "cache")
        add_base(registry, "pocket", f"dir:{loradeck_pocket.BASE}")
        arguments = ["train", "run", "pocket/clf-full", "--base", "pocket", "--registry", registry.url]
        arguments += ["--publish", "clf-full", "--output", str(folder / "training")]
        if steps is not None:
            arguments += ["--set", "optimisation.epochs=null", "--set", f"optimisation.max_steps={steps}"]
        say(f"training a full checkpoint of the pocket base ({'all' if steps is None else steps} steps)")
        with Child.loradeck("training", arguments, folder / "training.log", environment=environment) as child:
            while child.poll() is None:
                time.sleep(0.2)
            child.check()
        return newest_delta(registry)


def _whole(registry: Registry) -> Revision | None:
    """The largest base of a registry."""
    bases = [revision for name in registry.names() if (revision := registry.newest(name)).manifest.kind == "base"]
    return max(bases, key=lambda revision: revision.manifest.size, default=None)


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

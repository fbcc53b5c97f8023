"""The two sides of the comparison, each run as a child on the same rows: a plain Trainer, and `loradeck train run`."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loradeck_bench.children import Child, ChildFailedError
from loradeck_bench.training.trace import MemoryTrace

_PLAIN = "loradeck_bench.training.plain"
_POLL = 0.05
IMPORTS = {"plain": f"import {_PLAIN}", "loradeck": "import loradeck_train.run"}
"""What a side's process holds before it does anything."""


@dataclass(frozen=True)
class Work:
    """One training: the same words for both sides. Lengths are in optimizer steps or epochs, one of the two."""

    base: Path
    training: Path
    validation: Path
    method: str = "lora"
    batch_size: int = 16
    epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float = 2e-3
    seed: int = 0
    kind: str = "short_qa"
    answer: str = "short_answer"
    target_modules: str | tuple[str, ...] = "all-linear"
    packing: str = "off"
    save_steps: int | None = None
    rank: int = 16
    alpha: int = 32
    warmup_steps: int = 3

    def with_(self, **changes: Any) -> "Work":
        """The same with changes."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Outcome:
    """What a side measured. Bytes are resident memory over what its imports hold, until the training is over;
    `whole_peak_bytes` has what comes after it as well (export and the proof by reloading). `losses` has the loss by
    step, and the seconds where the side tells them."""

    tokens: int
    seconds: float
    validation_loss: float
    peak_bytes: int
    whole_peak_bytes: int
    checkpoint_bytes: int | None
    losses: list[dict[str, float]]
    memory: list[dict[str, Any]]
    bytes: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of prompts and answers, padding excluded, by second of the training loop."""
        return self.tokens / self.seconds


def plain(work: Work, folder: Path, imported: int) -> Outcome:
    """Run the plain Trainer. `imported` is the memory of its imports alone, in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    settings, result = folder / "settings.json", folder / "result.json"
    record = {
        "base": str(work.base), "training": str(work.training), "validation": str(work.validation),
        "method": work.method, "batch_size": work.batch_size, "epochs": work.epochs, "max_steps": work.max_steps,
        "learning_rate": work.learning_rate, "seed": work.seed, "kind": work.kind, "answer": work.answer,
        "rank": work.rank, "alpha": work.alpha, "warmup_steps": work.warmup_steps, "output": str(folder / "out"),
    }  # fmt: skip
    settings.write_text(json.dumps(record), encoding="utf-8")
    trace = _run("plain", [sys.executable, "-m", _PLAIN, str(settings), str(result)], folder)
    found = json.loads(result.read_text(encoding="utf-8"))
    return Outcome(
        tokens=found["tokens"],
        seconds=found["seconds"],
        validation_loss=found["validation_loss"],
        peak_bytes=(trace.peak_bytes() or 0) - imported,
        whole_peak_bytes=(trace.peak_bytes() or 0) - imported,
        checkpoint_bytes=None,
        losses=[{"step": step, "loss": loss} for step, loss in enumerate(found["losses"], 1)],
        memory=trace.points(imported),
    )


def loradeck(work: Work, folder: Path, imported: int) -> Outcome:
    """Run `loradeck train run`. `imported` as for `plain`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, result = folder / "recipe.json", folder / "result.json"
    # JSON is YAML.
    path.write_text(json.dumps(recipe(work)), encoding="utf-8")
    output = folder / "out"
    command = ["train", "run", str(path), "--output", str(output), "--json", str(result)]
    trace = _run("loradeck", [sys.executable, "-m", "loradeck_cli.main", *command], folder, lambda: _phase(output))
    found = json.loads(result.read_text(encoding="utf-8"))
    saving = trace.peak_bytes("checkpoint")
    return Outcome(
        tokens=found["tokens"],
        seconds=found["training_seconds"],
        validation_loss=found["validation_loss"],
        peak_bytes=(trace.peak_bytes("train", "checkpoint") or 0) - imported,
        whole_peak_bytes=(trace.peak_bytes() or 0) - imported,
        checkpoint_bytes=None if saving is None else saving - imported,
        losses=[{key: entry[key] for key in ("step", "loss", "seconds")} for entry in found["loss_history"]],
        memory=trace.points(imported),
        bytes=found["bytes"],
        extra={"loop_peak_bytes": found["peak_bytes"], "trainable_parameters": found["trainable_parameters"]},
    )


def recipe(work: Work) -> dict[str, Any]:
    """The work as a recipe."""
    optimisation = {
        "learning_rate": work.learning_rate, "batch_size": work.batch_size, "warmup_steps": work.warmup_steps,
        **({"epochs": work.epochs} if work.max_steps is None else {"max_steps": work.max_steps}),
    }  # fmt: skip
    tree: dict[str, Any] = {
        "base": f"dir:{work.base}",
        "method": work.method,
        "data": {
            "source": str(work.training), "columns": {"answer": work.answer},
            "validation": {"source": str(work.validation)}, "leakage": "off",
        },
        "task": {"kind": work.kind},
        "optimisation": optimisation,
        "packing": work.packing,
        "seed": work.seed,
        "publish": {"probe_prompts": 2},
    }  # fmt: skip
    if work.method == "lora":
        tree["lora"] = {"rank": work.rank, "alpha": work.alpha, "target_modules": work.target_modules}
    if work.save_steps is not None:
        tree["checkpoints"] = {"save_steps": work.save_steps}
    return tree


def imported_bytes(side: str, folder: Path) -> int:
    """Resident memory of a process that has imported what `side` needs, and done nothing else."""
    code = f"{IMPORTS[side]}; import time; time.sleep(0.5)"
    return _run(f"{side}-imports", [sys.executable, "-c", code], folder).peak_bytes() or 0


def _phase(output: Path) -> str:
    """What a `loradeck train run` is doing, from what lies in its output folder."""
    if (output / "published").exists():
        return "publish"
    return "checkpoint" if any((output / "checkpoints").glob(".writing-*")) else "train"


def _run(name: str, command: Sequence[str], folder: Path, phase: Callable[[], str] = lambda: "") -> MemoryTrace:
    with Child(name, command, folder / f"{name}.log") as child, MemoryTrace(child.pid, phase) as trace:
        while child.poll() is None:
            time.sleep(_POLL)
    child.check()
    if child.poll() != 0:
        raise ChildFailedError(f"{name} was stopped")
    return trace

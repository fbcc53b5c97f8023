"""`loradeck bench train`: this trainer against a plain one, LoRA against full, and what each stores, in one run."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_bench.children import Child, ChildFailedError
from loradeck_bench.machine import machine, versions
from loradeck_bench.training.sides import Outcome, Work, imported_bytes, loradeck, plain, recipe

_FULL_RATE = 5e-4
_HELD_OUT = 200
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainPlan:
    """Sizes. `rows` are trained once per speed run; `wide_steps` are steps on the base with a vocabulary of 152,064;
    `ladder_rows` are trained once per method and batch size. Batches are of 16 but on the ladder."""

    rounds: int = 2
    rows: int = 640
    wide_steps: int = 4
    ladder_rows: int = 192
    batch_sizes: tuple[int, ...] = (4, 16)


def measure_training(plan: TrainPlan, folder: Path, say: Say) -> dict[str, Any]:
    """Run everything in child processes, one after the other; what they write goes to `folder`, and can be removed."""
    started = time.monotonic()
    work = _prepare(plan, folder)
    imported = {side: imported_bytes(side, folder) for side in ("plain", "loradeck")}
    rounds = _speed(plan, work, folder, imported, say)
    wide = _wide(plan, work, folder, imported, say)
    ladder = _ladder(plan, work, folder, imported["loradeck"], say)
    middle = {side: [found[side] for found in rounds] for side in ("plain", "loradeck")}
    rates = {side: statistics.median(o.tokens_per_second for o in found) for side, found in middle.items()}
    losses = {side: statistics.mean(o.validation_loss for o in found) for side, found in middle.items()}
    return {
        "plain_tokens_per_s": round(rates["plain"], 1),
        "loradeck_tokens_per_s": round(rates["loradeck"], 1),
        "ratio": round(rates["loradeck"] / rates["plain"], 3),
        "plain_peak_bytes": wide["plain"].peak_bytes,
        "loradeck_peak_bytes": wide["loradeck"].peak_bytes,
        "peak_ratio": round(wide["loradeck"].peak_bytes / wide["plain"].peak_bytes, 3),
        "loss_difference": round(abs(losses["plain"] - losses["loradeck"]), 4),
        "loradeck_whole_peak_bytes": wide["loradeck"].whole_peak_bytes,
        "rounds": [{side: _figures(o) for side, o in found.items()} for found in rounds],
        "wide_vocabulary": {side: _figures(outcome) for side, outcome in wide.items()},
        "methods": ladder,
        "stored": _stored(work, folder, say),
        "plan": {"batch_size": 16, "precision": "bf16", "data": "pocket:qa", **vars(plan)},
        "machine": machine(),
        "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
    }


def measure_methods(plan: TrainPlan, folder: Path, say: Say) -> dict[str, Any]:
    """LoRA against full over batch sizes and what each stores: `measure_training` without the plain trainer."""
    started = time.monotonic()
    work = _prepare(plan, folder)
    return {
        "methods": _ladder(plan, work, folder, imported_bytes("loradeck", folder), say),
        "stored": _stored(work, folder, say),
        "plan": {
            "precision": "bf16", "data": "pocket:qa", "ladder_rows": plan.ladder_rows, "batch_sizes": plan.batch_sizes
        },
        "machine": machine(),
        "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _prepare(plan: TrainPlan, folder: Path) -> Work:
    """The project's QA set, cut to size: rows to train on, and rows that neither side trains on."""
    lines = (loradeck_pocket.QUESTION_ANSWERING / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    folder.mkdir(parents=True, exist_ok=True)
    training, ladder, validation = (folder / f"{name}.jsonl" for name in ("training", "ladder", "validation"))
    training.write_text("".join(lines[: plan.rows]), encoding="utf-8")
    ladder.write_text("".join(lines[: plan.ladder_rows]), encoding="utf-8")
    validation.write_text("".join(lines[-_HELD_OUT:]), encoding="utf-8")
    return Work(loradeck_pocket.BASE, training, validation, epochs=1.0)


def _speed(plan: TrainPlan, work: Work, folder: Path, imported: dict[str, int], say: Say) -> list[dict[str, Outcome]]:
    """Alternating runs on the pocket base, the sides in the other order each round."""
    found = []
    sides = [("plain", plain), ("loradeck", loradeck)]
    for number in range(plan.rounds):
        outcomes: dict[str, Outcome] = {}
        for side, run in sides if number % 2 == 0 else reversed(sides):
            outcomes[side] = run(work.with_(seed=number), folder / f"speed-{number}-{side}", imported[side])
            say(f"round {number + 1}: {side} {outcomes[side].tokens_per_second:,.0f} tokens/s")
        found.append(outcomes)
    return found


def _wide(plan: TrainPlan, work: Work, folder: Path, imported: dict[str, int], say: Say) -> dict[str, Outcome]:
    """A few steps with a vocabulary of 152,064, for the memory of it."""
    base = folder / "wide"
    _child("wide", ["-m", "loradeck_bench.training.wide", str(work.base), str(base)], folder)
    wide = work.with_(base=base, epochs=None, max_steps=plan.wide_steps, warmup_steps=0)
    found = {}
    for side, run in (("plain", plain), ("loradeck", loradeck)):
        found[side] = run(wide, folder / f"wide-{side}", imported[side])
        say(f"152k vocabulary: {side} {found[side].peak_bytes / 2**20:,.0f} MiB")
    return found


def _ladder(plan: TrainPlan, work: Work, folder: Path, imported: int, say: Say) -> list[dict[str, Any]]:
    """LoRA and full over batch sizes on the same rows, with checkpoints: speed, memory over time, loss over time."""
    found = []
    for size in plan.batch_sizes:
        steps = -(-plan.ladder_rows // size)
        for method, rate in (("lora", work.learning_rate), ("full", _FULL_RATE)):
            changed = work.with_(
                method=method, learning_rate=rate, batch_size=size, training=folder / "ladder.jsonl",
                save_steps=max(1, steps // 2),
            )  # fmt: skip
            outcome = loradeck(changed, folder / f"{method}-{size}", imported)
            name = {"name": f"{method}-{size}", "method": method, "batch_size": size}
            found.append({**name, **_figures(outcome), "loss": outcome.losses})
            found[-1]["memory"] = outcome.memory
            say(
                f"{method}, batch {size}: {outcome.tokens_per_second:,.0f} tokens/s, "
                f"{outcome.peak_bytes / 2**20:,.0f} MiB"
            )
    return found


def _stored(work: Work, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Bytes of what would be published, from plans that train nothing: two projections, all layers, everything."""
    found = []
    for name, changes in (
        ("q_proj and v_proj", {"target_modules": ("q_proj", "v_proj")}),
        ("all linear layers", {}),
        ("full checkpoint", {"method": "full"}),
    ):
        path, result = folder / "stored.json", folder / "stored-result.json"
        path.write_text(json.dumps(recipe(work.with_(**changes))), encoding="utf-8")
        command = ["-m", "loradeck_cli.main", "train", "plan", str(path), "--json", str(result)]
        _child("stored", command, folder)
        plan = json.loads(result.read_text(encoding="utf-8"))
        found.append(
            {"what": name, "rank": None if "method" in changes else work.rank, "bytes": plan["published_bytes"],
             "trainable_parameters": plan["trainable_parameters"]}
        )  # fmt: skip
        say(f"{name}: {plan['published_bytes']:,} bytes")
    return found


def _figures(outcome: Outcome) -> dict[str, Any]:
    return {
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 2),
        "tokens_per_s": round(outcome.tokens_per_second, 1),
        "peak_bytes": outcome.peak_bytes,
        "checkpoint_peak_bytes": outcome.checkpoint_bytes,
        "validation_loss": round(outcome.validation_loss, 4),
        "final_loss": round(outcome.losses[-1]["loss"], 4),
        "stored_bytes": outcome.bytes,
    }


def _child(name: str, arguments: list[str], folder: Path) -> None:
    with Child(name, [sys.executable, *arguments], folder / f"{name}.log") as child:
        while child.poll() is None:
            time.sleep(0.05)
    child.check()
    if child.poll() != 0:
        raise ChildFailedError(f"{name} was stopped")

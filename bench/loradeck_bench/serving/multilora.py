"""What adapters cost: the engine's own comparison as a child process, and its figures under the report's names."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.children import Child
from loradeck_bench.demo.progress import Progress
from loradeck_bench.serving.stage import circumstances

STEPS = ("compare engines",)
NAMES = {
    "base_tokens_per_s": "base_tokens_per_s",
    "adapters_tokens_per_s": "adapters_tokens_per_s",
    "stock_tokens_per_s": "stock_tokens_per_s",
    "bare_tokens_per_s": "no_lora_engine_tokens_per_s",
    "ratio_to_base": "ratio_to_base",
    "ratio_to_stock": "ratio_to_stock",
    "ratio_to_bare": "ratio_to_no_lora_engine",
    "wrong_tokens": "wrong_tokens",
}
"""Names in the result, and what the comparison calls them."""


@dataclass(frozen=True)
class MultiloraPlan:
    """64 requests at once of 100 + 64 tokens over 4 adapters of rank 8 in 4 slots, unless told otherwise."""

    rounds: int = 9
    replies: int = 1000
    compiled: bool = True
    """Compile the engine with adapters too, as a server does by itself."""
    concurrency: int = 64
    output_tokens: int = 64
    stock: bool = True
    """Compare with stock vLLM's operations."""
    bare: bool = True
    """Compare with an engine without LoRA."""


def measure_multilora(base: Path, plan: MultiloraPlan, console: Console) -> dict[str, Any]:
    """Start the engines, alternate rounds, compare replies. Raises ChildFailedError with the end of the log."""
    started = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as folder:
        progress = Progress(console, STEPS)
        out = Path(folder) / "result.json"
        log = Path(folder) / "logs" / "engines.log"
        with progress.step(STEPS[0]), Child("engines", command(base, plan, out), log) as child:
            while child.poll() is None:
                progress.note(" ".join(child.tail()))
                time.sleep(0.2)
            child.check()
        return {**figures(json.loads(out.read_text(encoding="utf-8"))), **circumstances(started)}


def command(base: Path, plan: MultiloraPlan, out: Path) -> list[str]:
    """The command that compares the engines and writes its result to `out`."""
    options = {
        "base": base,
        "json": out,
        "rounds": plan.rounds,
        "replies": plan.replies,
        "compiled": int(plan.compiled),
        "concurrency": plan.concurrency,
        "output-tokens": plan.output_tokens,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    left_out = [name for name in ("stock", "bare") if not getattr(plan, name)]
    flags = [f"--without-{name}" for name in left_out]
    return [sys.executable, "-m", "loradeck_serve.engine.baselines", *arguments, *flags]


def figures(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison's figures under the report's names; its own stay below `measured`. None for what was left out."""
    return {
        **{name: measured.get(source) for name, source in NAMES.items()},
        "replies": measured.get("replies"),
        "near_ties": measured.get("near_ties"),
        "adapters_compiled": measured.get("adapters_compiled"),
        "bare_compiled": measured.get("no_lora_engine_compiled"),
        "measured": dict(measured),
    }

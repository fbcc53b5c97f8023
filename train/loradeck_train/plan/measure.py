"""Planned against measured memory and time: `python -m loradeck_train.plan.measure`.

Every case trains a few steps of a model with random weights, in a process of its own, and is compared with its plan.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loradeck_pocket

_WORDS = ("bank", "school", "solar", "wind", "model", "city", "power", "hospital", "network", "report", "price", "test")
_STEPS = 5


@dataclass(frozen=True)
class Case:
    """A model (hidden, layers; None: the pocket base) and how it is trained."""

    name: str
    hidden: int | None
    layers: int
    method: str
    batch_size: int
    words: int
    packing: str = "off"


SIZES = {"pocket": (None, 0), "60M": (640, 10), "150M": (896, 14), "300M": (1152, 14)}
"""Of random weights: hidden size and layers, over the pocket base's vocabulary."""
UNSEEN = {"25M": (512, 6), "100M": (768, 12), "240M": (1280, 10)}
"""Sizes that no factor of the plan was fitted on."""


def cases(sizes: str) -> list[Case]:
    """LoRA and full, small and large batches, for every size of `fitted`, `quick` (the two smaller ones) or `unseen`,
    the last with batches and lengths of its own."""
    of = (
        UNSEEN if sizes == "unseen" else {k: v for k, v in SIZES.items() if sizes == "fitted" or k in ("pocket", "60M")}
    )
    batches = ((2, 150), (8, 90), (24, 40)) if sizes == "unseen" else ((4, 60), (16, 120))
    return [
        Case(name, hidden, layers, method, batch_size, words)
        for name, (hidden, layers) in of.items()
        for method in ("lora", "full")
        for batch_size, words in batches
    ]


def make_base(folder: Path, hidden: int, layers: int) -> Path:
    """A Qwen2 model of random weights with the pocket base's tokenizer."""
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    for path in loradeck_pocket.BASE.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    config = AutoConfig.from_pretrained(str(loradeck_pocket.BASE))
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=config.vocab_size,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(str(folder))
    return folder


def make_rows(path: Path, rows: int, words: int) -> Path:
    """Rows of one length, so that every batch is the largest."""
    rng = random.Random(0)
    lines = [json.dumps({"text": " ".join(rng.choices(_WORDS, k=words)), "label": _WORDS[i % 4]}) for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe_tree(case: Case, folder: Path) -> dict[str, Any]:
    """The case as a recipe."""
    base = "pocket:base" if case.hidden is None else f"dir:{folder / 'base'}"
    return {
        "base": base,
        "method": case.method,
        "data": {"source": str(folder / "rows.jsonl")},
        "task": {"kind": "classification"},
        "packing": case.packing,
        "optimisation": {"learning_rate": 1e-4, "max_steps": _STEPS, "batch_size": case.batch_size},
    }


def measure_one(tree: dict[str, Any]) -> dict[str, float]:
    """Train in this process and return its peak above the start and the seconds of the loop."""
    from rich.console import Console

    from loradeck_train.loop.memory import PeakMemory
    from loradeck_train.loop.trainer import train
    from loradeck_train.model.build import build_model
    from loradeck_train.prepare import pad_token_id, prepare
    from loradeck_train.recipe.files import parse_recipe

    recipe = parse_recipe(tree)
    prepared = prepare(recipe, None)
    with tempfile.TemporaryDirectory() as output, PeakMemory() as memory:
        built = build_model(
            recipe, prepared.base.folder, prepared.task, prepared.counts.longest, prepared.tokenizer, prepared.training
        )
        result = train(
            recipe,
            built,
            prepared.training,
            prepared.validation,
            pad_token_id(prepared.tokenizer),
            prepared.max_length,
            Path(output),
            console=Console(quiet=True),
        )
    times = [entry["seconds"] for entry in result.history]
    # The first steps make what later ones find ready.
    later = [after - before for before, after in itertools.pairwise(times)][1:]
    return {"peak_bytes": memory.peak_bytes, "seconds_per_step": statistics.median(later)}


def plan_one(tree: dict[str, Any]) -> dict[str, Any]:
    """The plan of the same recipe."""
    from loradeck_train.plan.plan import plan
    from loradeck_train.recipe.files import parse_recipe

    return plan(parse_recipe(tree), None, others=False).as_json()


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Planned and measured figures of a case, each from a process of its own."""
    if case.hidden is not None and not (folder / "base").exists():
        make_base(folder / "base", case.hidden, case.layers)
    make_rows(folder / "rows.jsonl", case.batch_size * (_STEPS + 1), case.words)
    tree = json.dumps(recipe_tree(case, folder))
    measured, planned = (_child(kind, tree) for kind in ("measure", "plan"))
    memory = planned["memory"]["peak"]
    return {
        "model": case.name,
        "parameters": planned["parameters"],
        "method": case.method,
        "batch_size": case.batch_size,
        "length": planned["longest"],
        "planned_bytes": memory,
        "measured_bytes": measured["peak_bytes"],
        "difference": round(memory / measured["peak_bytes"] - 1, 4),
        "planned_seconds_per_step": planned["seconds_per_step"],
        "measured_seconds_per_step": round(measured["seconds_per_step"], 3),
        "time_ratio": round(planned["seconds_per_step"] / measured["seconds_per_step"], 3),
    }


def _child(kind: str, tree: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "loradeck_train.plan.measure", "--one", kind]
    done = subprocess.run(command, input=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Compare all cases, print a line each, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=("measure", "plan"), help=argparse.SUPPRESS)
    parser.add_argument("--sizes", choices=("fitted", "quick", "unseen"), default="fitted", help="models and batches")
    parser.add_argument("--only", metavar="WORDS", default="", help="cases of which the name has all words: 300M full")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    if arguments.one:
        tree = json.load(sys.stdin)
        print(json.dumps(measure_one(tree) if arguments.one == "measure" else plan_one(tree)))
        return
    found = []
    with tempfile.TemporaryDirectory(prefix="loradeck-plan-") as scratch:
        for case in cases(arguments.sizes):
            if not set(arguments.only.split()) <= {case.name, case.method, str(case.batch_size)}:
                continue
            folder = Path(scratch) / case.name
            folder.mkdir(exist_ok=True)
            found.append(compare(case, folder))
            print("  ".join(f"{key}={value}" for key, value in found[-1].items()), flush=True)
    worst = max(abs(case["difference"]) for case in found)
    print(f"largest difference of the planned peak from the measured one: {worst:.1%}")
    ratios = sorted(case["time_ratio"] for case in found)
    print(f"planned by measured seconds per step: {ratios[0]:.2f} to {ratios[-1]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cases": found, "largest_difference": worst}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Writes the base's README.md (model and data card) and loss.png from what pre-training recorded beside the weights.

    python pocket/build/base/card.py --base pocket/loradeck_pocket/base

Every figure comes from corpus-*.json, run.json, loss.csv or abilities.json; a base exported before the end of its
training gets a card that says so.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from stages import read_records

DESCRIPTIONS = {
    "fragments": "the project's own: unlabelled media fragments (classification grammar, training families)",
    "reports": "the project's own: contexts of the question-answering grammar, training side, fresh slots, restated",
    "generic": "the project's own: simple instructions (repeat, pick, list, look up, read a few sentences)",
    "repetitions": "the project's own: arbitrary words and names, the same row of them two to four times",
    "lookups": "the project's own: chats that look several things up in one text full of free names",
    "arithmetic": "the project's own: one-step arithmetic, the training rows and fresh ones",
    "gsm8k": "GSM8K training rows, MIT (LICENSE-gsm8k.txt)",
    "wikisql": "WikiSQL training questions and queries, BSD-3-Clause (LICENSE-wikisql.txt)",
}
TEXT = Path(__file__).with_name("card.md")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, empty when it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of the training log."""
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def table(head: str, rows: list[tuple[object, ...]]) -> str:
    """A Markdown table; `head` names the columns, separated by '|'."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def corpus_table(corpus: dict[str, Any]) -> str:
    """Documents and tokens per source."""
    total = sum(counts["tokens"] for counts in corpus["train"].values())
    rows: list[tuple[object, ...]] = [
        (
            name,
            f"{counts['documents']:,}",
            f"{counts['tokens']:,}",
            f"{100 * counts['tokens'] / total:.0f} %",
            DESCRIPTIONS[name],
        )
        for name, counts in sorted(corpus["train"].items(), key=lambda item: -item[1]["tokens"])
    ]
    documents = sum(counts["documents"] for counts in corpus["train"].values())
    return table(
        "source | documents | tokens | share | what", [*rows, ("all", f"{documents:,}", f"{total:,}", "100 %", "")]
    )


def loss_table(corpus: dict[str, Any], losses: dict[str, float]) -> str:
    """Held-out loss per source."""
    rows: list[tuple[object, ...]] = [
        (name, f"{corpus['held_out_tokens'][name]:,}", f"{loss:.2f}") for name, loss in sorted(losses.items())
    ]
    return table("source | held-out tokens | loss, nats per token", rows)


def ability_table(abilities: dict[str, dict[str, float]]) -> str:
    """What the base does without fine-tuning."""
    rows: list[tuple[object, ...]] = [
        (kind, f"{figures['prompts']:.0f}", f"{figures['exact']:.2f}", f"{figures['rouge_1']:.2f}",
         f"{figures['final_number']:.2f}" if "final_number" in figures else "")
        for kind, figures in abilities.items()
    ]  # fmt: skip
    return table("prompts | number | exactly right | ROUGE-1 | final number right", rows)


def draw_losses(log: list[dict[str, str]], path: Path) -> None:
    """Training loss and held-out loss per source over tokens."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=110)
    axes.plot(
        [float(row["tokens"]) / 1e6 for row in log], [float(row["train"]) for row in log], color="0.6", label="training"
    )
    for source in DESCRIPTIONS:
        points = [(float(row["tokens"]) / 1e6, float(row[source])) for row in log if row.get(source)]
        axes.plot(*zip(*points, strict=True), marker=".", label=f"held out: {source}")
    axes.set(
        xlabel="million tokens", ylabel="loss, nats per token", ylim=(0, 5), title="Pre-training of the pocket base"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def stage_texts(stages: list[dict[str, Any]], steps: int, tokens: int) -> str:
    """One paragraph and table per stage: from which step, how much of its corpus was used, what was dropped."""
    texts = []
    for number, stage in enumerate(stages, 1):
        last = stages[number]["first_step"] if number < len(stages) else steps
        used = (last - stage["first_step"]) * tokens // steps
        total = sum(counts["tokens"] for counts in stage["train"].values())
        dropped = ", ".join(f"{name} {count}" for name, count in stage["dropped_documents"].items()) or "none"
        texts.append(
            f"**Stage {number}**, steps {stage['first_step']:,} to {last:,}: {used / 1e6:.1f} million tokens, "
            f"{used / total:.2f} passes over this corpus. Documents dropped for a test sentence: {dropped}.\n\n"
            f"{corpus_table(stage)}"
        )
    return "\n\n".join(texts)


def main() -> None:
    """Write README.md and loss.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    base = parser.parse_args().base
    stages, run = read_records(base), read_json(base / "run.json")
    log, abilities = read_log(base / "loss.csv"), read_json(base / "abilities.json")
    last = log[-1]
    if run:
        losses = run["final_held_out_nats_per_token"]
        steps, tokens, minutes = run["steps"], run["tokens_trained"], run["seconds"] / 60
        status = f"Trained to its planned end: {steps:,} steps on {run['hardware']}."
        options = ", ".join(f"{name} {value}" for name, value in run["hyperparameters"].items())
    else:
        measured = [row for row in log if row["fragments"]][-1]
        losses = {name: float(measured[name]) for name in DESCRIPTIONS if measured[name]}
        steps, tokens, minutes = int(last["step"]), int(float(last["tokens"])), float(last["seconds"]) / 60
        status = "**Intermediate: exported before the end of its training.**"
        options = "recorded when the training ends"
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    text = TEXT.read_text(encoding="utf-8").format(
        status=status,
        tokens=f"{tokens / 1e6:.1f}",
        minutes=f"{minutes:.0f}",
        options=options,
        bytes=f"{size:,}",
        stages=stage_texts(stages, steps, tokens),
        losses=loss_table(stages[-1], losses),
        abilities=ability_table(abilities) if abilities else "Not measured yet.",
    )
    (base / "README.md").write_text(text, encoding="utf-8")
    draw_losses(log, base / "loss.png")


if __name__ == "__main__":
    main()

"""Stages of pre-training: a later one takes over weights, tokenizer and log, and brings a corpus of its own."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

SOURCES = ("fragments", "reports", "generic", "repetitions", "lookups", "arithmetic", "gsm8k", "wikisql")
COLUMNS = ("step", "tokens", "seconds", "lr", "train", *SOURCES)


def take_over(earlier: Path, work: Path) -> int:
    """Copy checkpoint, tokenizer, log and corpus records of an earlier stage; the number of records is returned."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(earlier / "checkpoint.pt", work / "checkpoint.pt")
    with (earlier / "loss.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            write_row(work / "loss.csv", {name: float(value) for name, value in row.items() if value})
    shutil.copytree(earlier / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    records = sorted(earlier.glob("corpus-*.json"))
    for record in records:
        shutil.copy(record, work / record.name)
    return len(records)


def write_record(work: Path, number: int, record: dict[str, Any]) -> None:
    """Write the corpus record of stage `number` (from 1)."""
    (work / f"corpus-{number}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Corpus records of all stages, first to last."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("corpus-*.json"))]


def write_row(path: Path, row: dict[str, float]) -> None:
    """Append a row to the log; held-out columns are empty where nothing was measured."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})

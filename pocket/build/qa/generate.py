"""Writes the question-answering set (train.jsonl, test.jsonl) from the grammar; the same seed gives the same files."""

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from grammar import Row, draw_row
from slots import Split

# Explanations are shared by many rows of a split; a cap per question type keeps the types balanced.
KINDS = 12


def draw_split(split: Split, count: int, seed: int) -> list[Row]:
    """`count` rows of a split, no context twice, question types balanced to within one row."""
    rng = random.Random(f"qa-{split}-{seed}")
    cap, used, seen, rows = -(-count // KINDS), dict[str, int](), set[str](), list[Row]()
    while len(rows) < count:
        row = draw_row(rng, split)
        if row.context in seen or used.get(row.kind, 0) >= cap:
            continue
        seen.add(row.context)
        used[row.kind] = used.get(row.kind, 0) + 1
        rows.append(row)
    return rows


def write_rows(rows: list[Row], path: Path) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=2000, help="training rows")
    parser.add_argument("--test", type=int, default=300, help="test rows")
    parser.add_argument("--seed", type=int, default=20260101)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_rows(draw_split("train", arguments.train, arguments.seed), arguments.out / "train.jsonl")
    write_rows(draw_split("test", arguments.test, arguments.seed), arguments.out / "test.jsonl")


if __name__ == "__main__":
    main()

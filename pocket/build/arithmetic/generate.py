"""Writes the one-step arithmetic set (train.jsonl, test.jsonl) in GSM8K's answer style, deterministic by seed."""

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from problems import Problem, Split, draw


def draw_split(split: Split, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a split."""
    rng, seen, rows = random.Random(f"arithmetic-{split}-{seed}"), set[str](), list[Problem]()
    while len(rows) < count:
        problem = draw(rng, split)
        if problem.question not in seen:
            seen.add(problem.question)
            rows.append(problem)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20260101)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", arguments.train), ("test", arguments.test)):
        rows = draw_split(split, count, arguments.seed)  # type: ignore[arg-type]
        text = "".join(json.dumps(vars(row)) + "\n" for row in rows)
        (arguments.out / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

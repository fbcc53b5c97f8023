"""Cuts the samples of GSM8K and WikiSQL that the project ships from the full sets, deterministic by seed.

    python pocket/build/samples/cut.py --gsm8k FOLDER --text2sql FOLDER

FOLDER of GSM8K holds train.jsonl, test.jsonl and LICENSE; that of text2sql-data, wikisql.json.bz2 and its licence.
"""

import argparse
import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loradeck_bench.evaluation.structured.sql import parse
from loradeck_bench.text2sql import text2sql_rows

DATA = Path(__file__).parents[2] / "loradeck_pocket" / "data"
TRAIN, TEST = 1000, 200
SEED = 0
LONGEST = 600
"""Characters of question and answer together: the pocket base has a context of 512 tokens."""

_AGGREGATE = re.compile(r"(?<=^SELECT )(COUNT|MAX|MIN|SUM|AVG) (\S+)")
_UNFILLED = re.compile(r"\bvar\d+\b")


def sample(rows: Sequence[dict[str, Any]], count: int, name: str) -> list[dict[str, Any]]:
    """`count` rows that are short enough, drawn without replacement, in their first order."""
    short = [row for row in rows if sum(len(str(value)) for value in row.values()) <= LONGEST]
    chosen = random.Random(f"{name}-{SEED}").sample(range(len(short)), count)
    return [short[position] for position in sorted(chosen)]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The query without what the collection adds to column names and to the one table, aggregates with parentheses."""
    sql = row["sql"].replace(" AS TABLEalias0", "").replace("TABLEalias0.", "").replace("_FIELD", "")
    return row | {"sql": _AGGREGATE.sub(r"\1(\2)", sql.rstrip("; "))}


def write(folder: Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
    """One row of JSON a line."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    """Write both samples with their licences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--text2sql", type=Path, required=True)
    options = parser.parse_args()
    for split, count in (("train", TRAIN), ("test", TEST)):
        lines = (options.gsm8k / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        write(DATA / "gsm8k", split, sample([json.loads(line) for line in lines], count, f"gsm8k-{split}"))
        every = map(plain, text2sql_rows(options.text2sql / "wikisql.json.bz2", split))
        questions = [row for row in every if parse(row["sql"]) and not _UNFILLED.search(row["sql"])]
        write(DATA / "wikisql", split, sample(questions, count, f"wikisql-{split}"))
    shutil.copyfile(options.gsm8k / "LICENSE", DATA / "gsm8k" / "LICENSE")
    shutil.copyfile(options.text2sql / "wikisql-LICENSE.txt", DATA / "wikisql" / "LICENSE")


if __name__ == "__main__":
    main()

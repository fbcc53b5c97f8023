"""Splits that a data set lacks: cut out of its training rows, always the same ones."""

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loradeck_bench.study.format.work import Source, Split
from loradeck_bench.study.inputs import by_content, training_file
from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import iterate_rows


def cut(source: Source, shares: Mapping[Split, float], folder: Path) -> Source:
    """The source with `shares` of its training rows as further splits, in files below `folder` that are made once.

    Rows are drawn with a fixed seed, keep their order, and are in one split only. Raises InvalidError without training
    rows in a file, or where a share is less than a row.
    """
    path = training_file(source)
    if path is None:
        raise InvalidError("`cut` needs a file of training rows", reason="BAD_STUDY", field="cut")
    made = hashlib.sha256(json.dumps([by_content(str(path.absolute())), sorted(shares.items())]).encode()).hexdigest()
    files = {name: folder / made[:12] / f"{name}.jsonl" for name in ("train", *shares)}
    if not all(file.is_file() for file in files.values()):
        rows = list(iterate_rows(path, field="data"))
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)
        at = 0
        for name, share in shares.items():
            count = int(len(rows) * share)
            if not count:
                raise InvalidError(f"{share:.0%} of {len(rows)} rows is none", reason="BAD_STUDY", field="cut")
            _write(files[name], (rows[number] for number in sorted(order[at : at + count])))
            at += count
        _write(files["train"], (rows[number] for number in sorted(order[at:])))
    return source.model_copy(update={name: str(file.absolute()) for name, file in files.items()})


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}.part")
    with aside.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    aside.replace(file)

"""Rows of the text2sql-data collection (Finegan-Dollak et al., ACL 2018), whose JSON has variables to fill in."""

import bz2
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loradeck_registry.errors import InvalidError, NotFoundError


def text2sql_rows(path: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows `question`, `sql` of one question split (`train`, `dev`, `test`) of a .json or .json.bz2 file.

    Each question goes with the first of its entry's equivalent queries, variables filled in. Raises NotFoundError, or
    InvalidError (BAD_DATA) for a file of another form.
    """
    try:
        content = path.read_bytes()
        entries = json.loads(bz2.decompress(content) if path.suffix == ".bz2" else content)
        for entry in entries:
            for sentence in entry["sentences"]:
                if sentence["question-split"] == split:
                    yield {
                        "question": _filled(sentence["text"], sentence["variables"]),
                        "sql": _filled(entry["sql"][0], sentence["variables"]),
                    }
    except FileNotFoundError:
        raise NotFoundError(f"no data at {path}", field="data") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidError(
            f"{path.name} is not of the text2sql-data collection: {error}", reason="BAD_DATA", field="data"
        ) from None


def _filled(text: str, variables: dict[str, str]) -> str:
    # Longer names first: `var1` is the beginning of `var10`.
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(name, variables[name])
    return text

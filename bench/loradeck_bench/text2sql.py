"""Rows of the text2sql-data collection (Finegan-Dollak et al., ACL 2018), whose JSON has variables to fill in."""

import bz2
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from loradeck_registry.errors import InvalidError, NotFoundError


def text2sql_rows(path: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows `question`, `sql` of a question split (`train`, `dev`, `test`) of a .json or .json.bz2 file, and `context`,
    the definitions of the tables, where an .sqlite file of its name is beside it.

    Each question goes with the first of its entry's equivalent queries, variables filled in. Raises NotFoundError, or
    InvalidError (BAD_DATA) for a file of another form.
    """
    try:
        content = path.read_bytes()
        context = _definitions(path.with_suffix(".sqlite"))
        entries = json.loads(bz2.decompress(content) if path.suffix == ".bz2" else content)
        for entry in entries:
            for sentence in entry["sentences"]:
                if sentence["question-split"] == split:
                    yield {
                        "question": _filled(sentence["text"], sentence["variables"]),
                        "sql": _filled(entry["sql"][0], sentence["variables"]),
                        **context,
                    }
    except FileNotFoundError:
        raise NotFoundError(f"no data at {path}", field="data") from None
    except (OSError, sqlite3.Error, ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidError(
            f"{path.name} is not of the text2sql-data collection: {error}", reason="BAD_DATA", field="data"
        ) from None


def _definitions(database: Path) -> dict[str, str]:
    """`context`: a CREATE TABLE per table, as sql-create-context writes them; empty without such a file."""
    if not database.is_file():
        return {}
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        columns = connection.execute(
            "SELECT m.name, c.name || ' ' || upper(c.type) FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table' ORDER BY m.name, c.cid"
        ).fetchall()
    tables = groupby(columns, key=lambda row: row[0])
    return {"context": "; ".join(f"CREATE TABLE {name} ({', '.join(c for _, c in own)})" for name, own in tables)}


def _filled(text: str, variables: dict[str, str]) -> str:
    # Longer names first: `var1` is the beginning of `var10`.
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(name, variables[name])
    return text

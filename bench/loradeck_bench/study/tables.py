"""Tables of a report: what was measured in the layout of the publication, next to what it states."""

from typing import Any

from loradeck_bench.study.format.pages import Cell, Column, Row, Table
from loradeck_bench.study.published import ABSENT, Paper, Part
from loradeck_bench.study.results import Results, Value, shown

NO_CELL = Cell()


def make_table(table: Table, results: Results, paper: Paper | None) -> dict[str, Any]:
    """The table in the form of report files: for every row and column the measured text, value and interval, and the
    published text and value."""
    part = paper.parts.get(table.id) if paper else None
    notes = [*table.notes, *published_notes(part)]
    rows = []
    for row in table.rows:
        cells = {column.name: _cell(table, row, column, results, paper) for column in table.columns}
        rows.append({"name": row.name, "differs": row.differs, "cells": cells})
    for row in rows:
        for column, cell in row["cells"].items():
            if cell.get("published_note"):
                notes.append(f"{row['name']}, {column}: {cell['published_note']}")
    return {
        "title": table.title,
        "published_title": part.title if part else "",
        "corner": table.corner,
        "columns": [column.name for column in table.columns],
        "rows": rows,
        "notes": list(dict.fromkeys(notes)),
    }


def published_notes(part: Part | None) -> list[str]:
    """What is to be said of a published table or figure as a whole."""
    if part is None:
        return []
    return [*([] if part.in_copy else [f"published: {ABSENT}"]), *part.remarks]


def _cell(table: Table, row: Row, column: Column, results: Results, paper: Paper | None) -> dict[str, Any]:
    own = row.cells.get(column.name, NO_CELL)
    found = _measured(row, column, own, results)
    show = own.show or row.show or column.show
    digits = row.digits if row.digits is not None else column.digits
    cell: dict[str, Any] = {"measured": found.value, "text": shown(found.value, show, digits)}
    if found.value is None:
        cell["why"] = found.why
    if found.low is not None and found.high is not None:
        cell["low"], cell["high"] = found.low, found.high
        cell["interval"] = f"{shown(found.low, show, digits)} to {shown(found.high, show, digits)}"
    published = paper.cell(table.id, row.name, column.name) if paper else None
    if published is not None:
        cell |= {"published": published.value, "published_text": published.text}
        if published.wrong:
            cell["published_wrong"] = True
        if published.note:
            cell["published_note"] = published.note
    return cell


def _measured(row: Row, column: Column, own: Cell, results: Results) -> Value:
    if own.text is not None:
        return Value(own.text)
    of = own.of or row.of or column.of
    keys = [own.key] if own.key else [key for key in (row.key, column.key) if key]
    if of is None or not keys:
        return Value(why="")
    return results.get("/".join((of, *keys)))

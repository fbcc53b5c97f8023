"""Tables of a report: what was measured in the layout of the publication, next to what it states."""

from collections.abc import Mapping
from typing import Any

from loradeck_bench.study.format.pages import PATH_IN_TEXT, Cell, Column, Row, Table
from loradeck_bench.study.published import ABSENT, Paper, Part
from loradeck_bench.study.results import Results, Value, shown

NO_CELL = Cell()


def make_table(table: Table, results: Results, paper: Paper | None) -> dict[str, Any]:
    """The table in the form of report files: for every row and column the measured text, value and interval, and the
    published text and value."""
    part = paper.parts.get(table.id) if paper else None
    notes = [*table.notes, *published_notes(part)]
    rows: list[dict[str, Any]] = []
    for row in [*table.rows, *_each_row(table, results)]:
        cells = {column.name: _cell(table, row, column, results, paper) for column in table.columns}
        rows.append({"name": row.name, "differs": row.differs, "cells": cells})
    for made in rows:
        for name, cell in made["cells"].items():
            if cell.get("published_note"):
                notes.append(f"{made['name']}, {name}: {cell['published_note']}")
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
        return _filled(own.text, results)
    of = own.of or row.of or column.of
    keys = [own.key] if own.key else [key for key in (row.key, column.key) if key]
    if of is None or not keys:
        return Value(why="")
    found = results.get("/".join((of, *keys)))
    return found if own.over is None else _ratio(found, results.get(own.over))


def _ratio(value: Value, over: Value) -> Value:
    if not isinstance(value.value, int | float) or not isinstance(over.value, int | float) or not over.value:
        return Value(why=value.why or over.why or "not a number")
    return Value(value.value / over.value)


def _filled(text: str, results: Results) -> Value:
    """A text with the values of its paths."""
    for path in PATH_IN_TEXT.findall(text):
        found = results.get(path)
        if found.value is None:
            return Value(why=found.why)
        text = text.replace(f"${{{path}}}", shown(found.value, "text"))
    return Value(text)


def _each_row(table: Table, results: Results) -> list[Row]:
    if table.each is None:
        return []
    found = results.get(table.each.of).value
    entries = found.items() if isinstance(found, Mapping) else enumerate(found or ())
    rows = []
    for key, entry in entries:
        fields = {"name": key, **(entry if isinstance(entry, Mapping) else {})}
        if any(str(fields.get(name)) != text for name, text in table.each.where.items()):
            continue
        rows.append(Row(name=table.each.name.format_map(fields), of=f"{table.each.of}/{key}"))
    return rows

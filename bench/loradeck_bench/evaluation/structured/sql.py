"""SQL answers: does it parse, is it the reference in another spelling, does it return the reference's rows?"""

import contextlib
import re
import sqlite3
from collections.abc import Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.simplify import simplify

from loradeck_bench.evaluation.figure import Figure, combined, mean
from loradeck_bench.evaluation.measured import method
from loradeck_bench.evaluation.structured.database import Database, Outcome

DIALECT = "sqlite"


_FENCED = re.compile(r"```(?:sql|sqlite)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def query_in(answer: str) -> str:
    """The first fenced block of an answer that has one, else the whole answer; without a semicolon at its end."""
    fenced = _FENCED.search(answer)
    return (fenced[1] if fenced else answer).strip().rstrip(";").rstrip()


def parse(text: str) -> exp.Query | None:
    """The one query in `text`, None if it is anything else."""
    try:
        statements = [statement for statement in sqlglot.parse(text, dialect=DIALECT) if statement is not None]
    except (SqlglotError, RecursionError):
        return None
    return statements[0] if len(statements) == 1 and isinstance(statements[0], exp.Query) else None


def canonical(query: exp.Query) -> str:
    """One spelling for queries that differ only in layout, case, aliases of tables, quotes of strings, names of the
    result's columns, or the order of conditions."""
    tree: exp.Expression = query.copy().transform(_string)
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.casefold())
        identifier.set("quoted", False)
    _number_tables(tree)
    tree = tree.transform(lambda node: node.this if _names_a_result(node) else node)
    # What cannot be simplified is compared as it stands.
    with contextlib.suppress(SqlglotError, RecursionError):
        tree = simplify(tree, dialect=DIALECT)
    return str(tree.sql(dialect=DIALECT, comments=False))


def sql(answers: Sequence[str], references: Sequence[str], database: Database | None = None) -> dict[str, Figure]:
    """`sql_parsed`, `sql_canonical`, and with a database `sql_execution` and `sql_ran`.

    Items whose reference does not parse are left out of `sql_canonical`, those whose reference fails on the database of
    the last two; the method says how many. Raises ValueError where no reference parses, or none runs.
    """
    queries = [query_in(answer) for answer in answers]
    gold, given = [parse(reference) for reference in references], [parse(query) for query in queries]
    unreadable = sum(query is None for query in gold)
    if unreadable == len(gold):
        raise ValueError(f"no reference is an SQL query; the first: {references[0][:60]!r}")
    how = method("sqlglot", f"dialect {DIALECT}", "the first fenced block of an answer, else all of it")
    equal = [
        (0.0, 0.0) if g is None else (float(a is not None and canonical(a) == canonical(g)), 1.0)
        for a, g in zip(given, gold, strict=True)
    ]
    left_out = f"; {unreadable} of {len(gold)} references do not parse and are left out" if unreadable else ""
    figures = {
        "sql_parsed": mean([query is not None for query in given], f"{how}; exactly one query"),
        "sql_canonical": combined(
            "ratio",
            equal,
            f"{how}; equal after case, quotes, table aliases, result names and sqlglot's simplify{left_out}",
        ),
    }
    return figures | (_executed(queries, references, database) if database else {})


def _executed(queries: Sequence[str], references: Sequence[str], database: Database) -> dict[str, Figure]:
    golden = [database.run(reference) for reference in references]
    ours = [
        database.run(query) if gold.rows is not None else Outcome(None)
        for query, gold in zip(queries, golden, strict=True)
    ]
    runs = sum(outcome.rows is not None for outcome in golden)
    if not runs:
        raise ValueError(f"no reference runs on {database.path.name}: {golden[0].detail}")
    empty = sum(outcome.rows is not None and not outcome.rows for outcome in golden)
    where = f"SQLite {sqlite3.sqlite_version} on {database.path.name}, read only"
    how = method(
        "loradeck",
        f"{where}, {database.seconds:g} s and {database.rows} rows a query",
        "rows compared as a bag, columns in their order",
        f"{len(golden) - runs} of {len(golden)} references fail there and are left out, {empty} return no row",
    )
    parts = [
        (float(one.rows is not None and one.rows == other.rows), 1.0) if other.rows is not None else (0.0, 0.0)
        for one, other in zip(ours, golden, strict=True)
    ]
    ran = [
        (float(one.rows is not None), 1.0) if other.rows is not None else (0.0, 0.0)
        for one, other in zip(ours, golden, strict=True)
    ]
    return {
        "sql_execution": combined("ratio", parts, how),
        "sql_ran": combined("ratio", ran, f"{how}; share of answers that return rows within the limits"),
    }


def _string(node: exp.Expression) -> exp.Expression:
    """SQLite takes "text" for a string where no column has that name; both spellings become a string."""
    if isinstance(node, exp.Column) and not node.table and isinstance(node.this, exp.Identifier) and node.this.quoted:
        return exp.Literal.string(node.this.name)
    return node


def _number_tables(tree: exp.Expression) -> None:
    """Aliases of tables become t0, t1, … in their order; where there is one table, it and its columns need none."""
    if len(list(tree.find_all(exp.Table, exp.Subquery))) == 1:
        for node in tree.find_all(exp.Table, exp.Column):
            node.set("alias" if isinstance(node, exp.Table) else "table", None)
        return
    names: dict[str, str] = {}
    for table in tree.find_all(exp.Table, exp.Subquery):
        if table.alias:
            names.setdefault(table.alias, f"t{len(names)}")
            table.set("alias", exp.TableAlias(this=exp.to_identifier(names[table.alias])))
    for column in tree.find_all(exp.Column):
        if column.table in names:
            column.set("table", exp.to_identifier(names[column.table]))


def _names_a_result(node: exp.Expression) -> bool:
    return isinstance(node, exp.Alias) and isinstance(node.parent, exp.Select) and node.arg_key == "expressions"

"""SQL answers: parsing, one spelling, and running on a real SQLite file without being able to harm it."""

import sqlite3
from pathlib import Path

import pytest

from loradeck_bench.evaluation.structured.database import Database
from loradeck_bench.evaluation.structured.sql import canonical, parse, query_in, sql
from loradeck_bench.text2sql import text2sql_rows
from loradeck_registry.errors import InvalidError, NotFoundError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "text2sql"
GOLD = 'SELECT c.name FROM city AS c WHERE c.state = "texas" AND c.size > 5 ;'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "towns.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(
        "CREATE TABLE city (name TEXT, state TEXT, size REAL);"
        "INSERT INTO city VALUES ('Austin', 'texas', 9), ('Waco', 'texas', 6), ('Reno', 'nevada', 2);"
    )
    connection.close()
    return file


def one(query: str) -> str:
    parsed = parse(query)
    assert parsed is not None
    return canonical(parsed)


@pytest.mark.parametrize(
    "query",
    [
        "select C.NAME from City C where C.size > 5 and C.state = 'texas'",
        "SELECT name AS town FROM city WHERE state = 'texas' AND size > 5",
        "SELECT x.name\nFROM city x -- towns\nWHERE 5 < x.size AND 'texas' = x.state",
    ],
)
def test_spelling_does_not_count(query: str) -> None:
    assert one(query) == one(GOLD)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT name FROM city WHERE state = 'Texas' AND size > 5",
        "SELECT name FROM city WHERE state = 'texas' OR size > 5",
        "SELECT DISTINCT name FROM city WHERE state = 'texas' AND size > 5",
        "SELECT state FROM city WHERE state = 'texas' AND size > 5",
    ],
)
def test_another_query_is_another_spelling(query: str) -> None:
    assert one(query) != one(GOLD)


def test_tables_with_swapped_aliases_are_told_apart() -> None:
    joined = "SELECT {0}.name FROM city AS a JOIN state AS b ON a.state = b.name"
    assert one(joined.format("a")) != one(joined.format("b"))
    assert one(joined.format("a")) == one("SELECT u.name FROM city u JOIN state v ON u.state = v.name")


@pytest.mark.parametrize(
    "text", ["", "Austin", "SELECT FROM WHERE", "DROP TABLE city", "SELECT 1; SELECT 2", "SELECT ("]
)
def test_what_is_not_one_query_does_not_parse(text: str) -> None:
    assert parse(text) is None


def test_fenced_answer_is_its_query() -> None:
    assert query_in("Here it is:\n```sql\nSELECT 1;\n```\nThat counts.") == "SELECT 1"
    assert query_in(" SELECT 1 ;") == "SELECT 1"


def test_rows_are_compared_as_a_bag(path: Path) -> None:
    answers = [
        "SELECT name FROM city WHERE size > 5 ORDER BY name DESC",  # the same rows in another order
        "SELECT name FROM city WHERE size > 1",
        "SELECT name, size FROM city WHERE size > 5",
        "SELECT nothing FROM city",
    ]
    database = Database(path)
    figures = {name: figure.value for name, figure in sql(answers, [GOLD] * 4, database).items()}
    assert figures["sql_execution"] == pytest.approx(1 / 4)
    assert figures["sql_ran"] == pytest.approx(3 / 4)
    assert figures["sql_parsed"] == 1.0
    assert figures["sql_canonical"] == 0.0


def test_reference_that_fails_is_left_out_and_counted(path: Path) -> None:
    figures = sql([GOLD, GOLD], [GOLD, "SELECT gone FROM city"], Database(path))
    assert figures["sql_execution"].value == 1.0
    assert "1 of 2 references fail" in figures["sql_execution"].how
    with pytest.raises(ValueError, match="no reference runs"):
        sql([GOLD], ["SELECT gone FROM city"], Database(path))


def test_reference_that_does_not_parse_is_left_out_and_counted() -> None:
    figures = sql([GOLD, GOLD], [GOLD, 'SELECT x FROM t WHERE y = ""quoted" twice"'])
    assert figures["sql_canonical"].value == 1.0
    assert "1 of 2 references do not parse" in figures["sql_canonical"].how
    with pytest.raises(ValueError, match="no reference is an SQL query"):
        sql([GOLD], ["a town"])


def test_empty_answer_is_not_equal_to_no_rows(path: Path) -> None:
    gold = "SELECT name FROM city WHERE size > 100"
    assert sql([""], [gold], Database(path))["sql_execution"].value == 0.0
    assert sql([gold], [gold], Database(path))["sql_execution"].value == 1.0


@pytest.mark.parametrize(
    ("query", "failure"),
    [
        ("DELETE FROM city", "refused"),
        ("CREATE TABLE x (y)", "refused"),
        ("ATTACH DATABASE '{other}' AS other", "refused"),
        ("VACUUM INTO '{other}'", "refused"),
        ("PRAGMA query_only = OFF", "refused"),
        ("SELECT load_extension('{other}')", "refused"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c", "time"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c", "rows"),
        ("SELECT zeroblob(2000000000)", "error"),
        ("SELECT 1; DELETE FROM city", "error"),
        ("SELECT \0", "error"),
        ("", "error"),
    ],
)
def test_query_of_a_model_cannot_do_harm(path: Path, tmp_path: Path, query: str, failure: str) -> None:
    before = path.read_bytes()
    database = Database(path, seconds=0.2 if failure == "time" else 60, rows=1000)
    outcome = database.run(query.format(other=tmp_path / "other.db"))
    assert (outcome.rows, outcome.failure) == (None, failure), outcome.detail
    database.seconds = 60
    assert database.run("SELECT count(*) FROM city").rows == {(3,): 1}
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Database(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(InvalidError, match="not an SQLite database"):
        Database(tmp_path / "text.sqlite")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the geography data, which the project does not ship")
def test_geography_queries_match_themselves() -> None:
    rows = [row for split in ("train", "dev", "test") for row in text2sql_rows(SHARED / "geography.json", split)]
    assert len(rows) == 877
    queries = [row["sql"] for row in rows]
    figures = sql(queries, queries, Database(SHARED / "geography.sqlite"))
    assert {name: figure.value for name, figure in figures.items()} == dict.fromkeys(
        ("sql_parsed", "sql_canonical", "sql_execution", "sql_ran"), 1.0
    )
    assert "5 of 877 references fail there and are left out, 28 return no row" in figures["sql_execution"].how

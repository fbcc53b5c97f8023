"""Raw text in: rows of JSONL, CSV or Parquet, and the Posts.xml of a StackExchange dump."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_train.data.rows import iterate_rows

_TAG = re.compile(r"<[^>]+>")
_SPACE = re.compile(r"[ \t\u00a0]+")


@dataclass(frozen=True)
class Thread:
    """A question and its answer on a forum, as plain text."""

    question: str
    answer: str


def texts(source: str, column: str, limit: int | None) -> Iterator[str]:
    """The texts in a column. Raises InvalidError (MISSING_COLUMN) with the row."""
    for number, row in enumerate(iterate_rows(source, limit=limit), 1):
        yield plain(_cell(row, column, number, source))


def threads(source: str, question: str, answer: str, limit: int | None) -> Iterator[Thread]:
    """Questions with their answers, from two columns, or from a dump's `Posts.xml` (see `dump_threads`)."""
    if Path(source).suffix == ".xml":
        for number, thread in enumerate(dump_threads(Path(source)), 1):
            yield thread
            if number == limit:
                return
        return
    for number, row in enumerate(iterate_rows(source, limit=limit), 1):
        yield Thread(plain(_cell(row, question, number, source)), plain(_cell(row, answer, number, source)))


def dump_threads(path: Path) -> Iterator[Thread]:
    """Questions of a StackExchange dump with the accepted answer, else the answer of the highest score; questions
    without an answer are left out. The file is read twice as a stream; only answers that may be used are held."""
    best: dict[str, tuple[bool, int, str]] = {}
    accepted = {row["Id"]: row.get("AcceptedAnswerId") for row in _posts(path) if row.get("PostTypeId") == "1"}
    for row in _posts(path):
        parent = row.get("ParentId")
        if row.get("PostTypeId") == "2" and parent in accepted:
            candidate = (row["Id"] == accepted[parent], int(row.get("Score", "0")), row.get("Body", ""))
            if parent not in best or candidate[:2] > best[parent][:2]:
                best[parent] = candidate
    for row in _posts(path):
        if row.get("PostTypeId") == "1" and row["Id"] in best:
            yield Thread(plain(row.get("Title", "")), plain(best[row["Id"]][2]))


def plain(text: str) -> str:
    """Text without tags and character references, and with single spaces."""
    broken = re.sub(r"</(?:p|li|pre|blockquote|h\d)>|<br\s*/?>", "\n", text)
    lines = (_SPACE.sub(" ", line).strip() for line in html.unescape(_TAG.sub("", broken)).splitlines())
    return "\n".join(line for line in lines if line)


def _posts(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise NotFoundError(f"no dump at {path}", field="source")
    try:
        events = ElementTree.iterparse(path, events=("start", "end"))
        _, root = next(events)
        for event, element in events:
            if event == "end" and element.tag == "row":
                yield dict(element.attrib)
                # Or the root would hold every row that was read.
                root.clear()
    except ElementTree.ParseError as error:
        raise InvalidError(f"{path.name} is no XML: {error}", reason="BAD_DATA", field="source") from error


def _cell(row: dict[str, object], column: str, number: int, source: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InvalidError(
            f"row {number} of {Path(source).name} has no text in column `{column}`; it has {', '.join(map(str, row))}",
            reason="MISSING_COLUMN",
            field="source",
        )
    return value

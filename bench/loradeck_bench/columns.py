"""Where a task's columns come from when a data set names them otherwise: `label=mr:^([a-z_]+)`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loradeck_registry.errors import InvalidError


@dataclass(frozen=True)
class Column:
    """A column of the data, and optionally a regular expression whose first group is taken from it."""

    name: str
    pattern: re.Pattern[str] | None = None

    def of(self, row: Mapping[str, Any], where: str) -> Any:
        """The value in `row`; None if the column is missing. Raises InvalidError (NO_MATCH) if the pattern fails."""
        value = row.get(self.name)
        if value is None or self.pattern is None:
            return value
        found = self.pattern.search(str(value))
        if found is None:
            raise InvalidError(
                f"{where}: column {self.name!r} does not match {self.pattern.pattern!r}",
                reason="NO_MATCH",
                field="data",
            )
        return found.group(1)


def parse_columns(texts: Iterable[str], known: Iterable[str]) -> dict[str, Column]:
    """Read `FIELD=COLUMN` or `FIELD=COLUMN:PATTERN` (one group). Raises InvalidError for an unknown field or a bad
    pattern."""
    fields = tuple(known)
    columns: dict[str, Column] = {}
    for text in texts:
        field, separator, rest = text.partition("=")
        name, colon, pattern = rest.partition(":")
        if not separator or not name or field not in fields:
            raise InvalidError(
                f"bad column {text!r}: use FIELD=COLUMN or FIELD=COLUMN:PATTERN with FIELD one of {', '.join(fields)}",
                reason="BAD_COLUMN",
                field="column",
            )
        columns[field] = Column(name, _compiled(pattern) if colon else None)
    return columns


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidError(f"bad pattern {pattern!r}: {error}", reason="BAD_COLUMN", field="column") from None
    if compiled.groups != 1:
        raise InvalidError(f"the pattern {pattern!r} needs exactly one group", reason="BAD_COLUMN", field="column")
    return compiled

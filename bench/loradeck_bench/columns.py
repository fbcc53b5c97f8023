"""Where a task's columns come from when a data set names them otherwise: `label=mr:^([a-z_]+)`, `answer=model.text`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loradeck_registry.errors import InvalidError


@dataclass(frozen=True)
class Column:
    """A column of the data, or a path into nested ones (`outer.inner`), and optionally a regular expression whose first
    group is taken from it."""

    name: str
    pattern: re.Pattern[str] | None = None

    def of(self, row: Mapping[str, Any], where: str) -> Any:
        """The value in `row`; None if the column is missing. Raises InvalidError (NO_MATCH) if the pattern fails."""
        value = row.get(self.name)
        if value is None and "." in self.name:
            value = _nested(row, self.name.split("."))
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


def parse_columns(texts: Iterable[str], known: Iterable[str] | None) -> dict[str, Column]:
    """Read `FIELD=COLUMN` or `FIELD=COLUMN:PATTERN` (one group); `known` None takes any identifier as field. Raises
    InvalidError for an unknown field or a bad pattern."""
    fields = None if known is None else tuple(known)
    columns: dict[str, Column] = {}
    for text in texts:
        field, separator, rest = text.partition("=")
        name, colon, pattern = rest.partition(":")
        if not separator or not name or (not field.isidentifier() if fields is None else field not in fields):
            which = "a name" if fields is None else f"one of {', '.join(fields)}"
            raise InvalidError(
                f"bad column {text!r}: use FIELD=COLUMN or FIELD=COLUMN:PATTERN with FIELD {which}",
                reason="BAD_COLUMN",
                field="column",
            )
        columns[field] = Column(name, _compiled(pattern) if colon else None)
    return columns


def _nested(row: Mapping[str, Any], path: Iterable[str]) -> Any:
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidError(f"bad pattern {pattern!r}: {error}", reason="BAD_COLUMN", field="column") from None
    if compiled.groups != 1:
        raise InvalidError(f"the pattern {pattern!r} needs exactly one group", reason="BAD_COLUMN", field="column")
    return compiled

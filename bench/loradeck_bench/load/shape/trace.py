"""A recorded trace to replay: when requests came, how long their prompts and answers were; it names no adapters."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loradeck_registry.errors import InvalidError, NotFoundError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""Of Azure's LLM inference traces of 2023. A time is ISO 8601, or seconds."""


@dataclass(frozen=True)
class TraceRow:
    """`time` in seconds from the first row of the trace."""

    time: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Trace:
    """A trace in the order of time. `skipped` rows could not be read."""

    source: str
    rows: tuple[TraceRow, ...]
    skipped: int = 0
    speed: float = 1.0
    """Replayed so many times as fast."""
    token_scale: float = 1.0
    """Answers are so many times as long, at least one token."""

    def scheduled(self, duration: float) -> list[tuple[float, TraceRow]]:
        """Intended send times below `duration`, with their rows."""
        times = ((row.time / self.speed, row) for row in self.rows)
        return [(time, row) for time, row in times if time < duration]

    def output_limit(self, row: TraceRow) -> int:
        """Tokens to ask for in place of the row's."""
        return max(1, round(row.output_tokens * self.token_scale))


def read_trace(path: Path, speed: float = 1.0, token_scale: float = 1.0) -> Trace:
    """Read a CSV file with COLUMNS. Rows without a time or with impossible numbers are skipped and counted.

    Raises NotFoundError, and InvalidError (BAD_TRACE) without the columns, without a good row, or for a bad scale.
    """
    if not all(math.isfinite(number) and number > 0 for number in (speed, token_scale)):
        raise InvalidError("speed and token scale must be above zero", reason="BAD_TRACE", field="trace")
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InvalidError(f"{path.name} has no column {missing[0]}", reason="BAD_TRACE", field="trace")
            read = [_row(line) for line in reader]
    except OSError as error:
        raise NotFoundError(f"no trace at {path}: {error.strerror}", field="trace") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidError(f"{path.name} is not CSV: {error}", reason="BAD_TRACE", field="trace") from None
    rows = sorted((row for row in read if row is not None), key=lambda row: row.time)
    if not rows:
        raise InvalidError(f"{path.name} has no good row of {len(read)}", reason="BAD_TRACE", field="trace")
    first = rows[0].time
    moved = tuple(TraceRow(row.time - first, row.prompt_tokens, row.output_tokens) for row in rows)
    return Trace(path.name, moved, len(read) - len(rows), speed, token_scale)


def _row(line: Mapping[str, str | None]) -> TraceRow | None:
    try:
        time, prompt, output = (str(line[name] or "") for name in COLUMNS)
        row = TraceRow(_seconds(time), int(prompt), int(output))
    except (ValueError, OverflowError):
        return None
    return row if math.isfinite(row.time) and row.prompt_tokens > 0 and row.output_tokens >= 0 else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)).total_seconds()

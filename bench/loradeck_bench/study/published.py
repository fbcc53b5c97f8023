"""What the publications state, figure by figure: read from data files, with notes where it cannot be right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from loradeck_registry.errors import NotFoundError

FOLDER = Path(__file__).parents[1] / "studies" / "published"
ABSENT = "not in our copy"
"""What stands where a publication's figure is a picture that the project has no copy of."""
_NUMBER = re.compile(r"(-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?) ?(%|M|GiB|GB|min|hr)?")
_FACTOR = {"M": 1e6}


class Note(BaseModel):
    """A remark on a table, or on one cell of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    row: str = ""
    column: str = ""
    note: str
    wrong: bool = Field(default=False, description="the published value cannot be right")
    printed: str = Field(default="", description="how our copy prints the cell, where it is damaged")
    quote: str = Field(default="", description="where the publication's text has it")


@dataclass(frozen=True)
class Cell:
    """One published figure. `value` is a number where `text` is one: per cent as written, 28M as 28,000,000, GiB, GB,
    minutes and hours as written. `printed` is how our copy has it."""

    study: str
    seed: int
    part: str
    row: str
    column: str
    text: str
    note: str = ""
    wrong: bool = False
    printed: str = ""
    quote: str = ""

    @property
    def value(self) -> float | None:
        """The number, None for words, dashes and sums."""
        found = _NUMBER.fullmatch(self.text)
        return float(found[1].replace(",", "")) * _FACTOR.get(found[2], 1) if found else None


class Part(BaseModel):
    """A table, a picture, or what the text says. Of a picture that our copy lacks only stray figures are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    in_copy: bool = True
    corner: str = ""
    columns: tuple[str, ...] = ()
    rows: dict[str, tuple[str | None, ...]] = Field(default_factory=dict)
    printed: dict[str, str] = Field(default_factory=dict, description="row -> its head in our copy, where it differs")
    quotes: dict[str, str] = Field(default_factory=dict, description="row -> the words of the text that have it")
    notes: tuple[Note, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for row, cells in self.rows.items():
            if len(cells) != len(self.columns):
                raise ValueError(f"row {row!r} has {len(cells)} cells, not {len(self.columns)}")
        for note in self.notes:
            if (note.row and note.row not in self.rows) or (note.column and note.column not in self.columns):
                raise ValueError(f"a note is on {note.row!r}, {note.column!r}, which is no cell")
        for name in (*self.printed, *self.quotes):
            if name not in self.rows:
                raise ValueError(f"{name!r} is no row")
        return self

    @property
    def remarks(self) -> list[str]:
        """Notes on the whole."""
        return [note.note for note in self.notes if not note.row]


class Paper(BaseModel):
    """A publication's figures by part: `table-4`, `figure-1`, and names of our own where it numbers nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    study: str
    seed: int
    title: str
    text: str = Field(description="file of our copy")
    parts: dict[str, Part]

    def cell(self, part: str, row: str, column: str) -> Cell | None:
        """One figure, None if the publication has none there."""
        found = self.parts.get(part)
        if found is None or row not in found.rows or column not in found.columns:
            return None
        text = found.rows[row][found.columns.index(column)]
        if text is None:
            return None
        notes = [note for note in found.notes if note.row == row and note.column == column]
        return Cell(
            study=self.study,
            seed=self.seed,
            part=part,
            row=row,
            column=column,
            text=text,
            note="; ".join(note.note for note in notes),
            wrong=any(note.wrong for note in notes),
            printed=next((note.printed for note in notes if note.printed), text),
            quote=next((note.quote for note in notes if note.quote), found.quotes.get(row, "")),
        )

    def cells(self) -> Iterator[Cell]:
        """Every figure."""
        for name, part in self.parts.items():
            for row in part.rows:
                for column in part.columns:
                    if (cell := self.cell(name, row, column)) is not None:
                        yield cell

    def missing(self, part: str) -> bool:
        """Whether `part` is a picture that our copy lacks."""
        return part in self.parts and not self.parts[part].in_copy


def published_studies() -> list[str]:
    """Names of the studies whose publications are known."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def published(study: str) -> Paper:
    """The publication that a study repeats. Raises NotFoundError."""
    path = FOLDER / f"{study}.yaml"
    if not path.is_file():
        raise NotFoundError(f"no published figures of {study!r}: there are {', '.join(published_studies())}")
    return Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

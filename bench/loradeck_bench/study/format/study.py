"""The study file at one scale, checked as a whole."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from loradeck_bench.study.format.pages import PATH_IN_TEXT, Card, Figure, Table
from loradeck_bench.study.format.strict import Name, Strict, Text
from loradeck_bench.study.format.work import Base, Compared, DataSet, Evaluation, Judged, Run, Served, Server

ROOTS = ("bases", "runs", "evaluations", "data")


class Study(Strict):
    """One study at one scale."""

    title: Text
    about: Text = Field(description="what the publication did, and what is repeated")
    differs: tuple[str, ...] = Field(default=(), description="what differs from the publication at this scale")
    published: str = Field(default="", description="name of the publication in `loradeck_bench.study.published`")
    at_once: int = Field(default=1, ge=1, le=8, description="trainings side by side")
    bases: dict[Name, Base] = Field(min_length=1)
    data: dict[Name, DataSet] = Field(default_factory=dict)
    runs: dict[Name, Run] = Field(default_factory=dict)
    servers: dict[Name, Server] = Field(default_factory=dict)
    evaluations: dict[Name, Evaluation] = Field(default_factory=dict)
    cards: tuple[Card, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for place, name, known in self._references():
            if name not in known:
                raise ValueError(f"`{place}` names {name!r}, which is none of {', '.join(known) or 'nothing'}")
        for place, path in self._paths():
            root, _, rest = path.partition("/")
            name = rest.partition("/")[0]
            if root not in ROOTS or name not in getattr(self, root, {}):
                raise ValueError(f"`{place}`: no result {root}/{name}")
        if both := set(self.runs) & set(self.bases):
            raise ValueError(f"{', '.join(sorted(both))}: runs and bases share the registry and need different names")
        ids = [part.id for part in (*self.tables, *self.figures)]
        if twice := {one for one in ids if ids.count(one) > 1}:
            raise ValueError(f"tables and figures need different ids: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _runs_go_in_no_circle(self) -> Self:
        for name in self.runs:
            seen, at = {name}, self.parent(name)
            while at is not None:
                if at in seen:
                    raise ValueError(f"`runs.{name}.base` goes in a circle")
                seen.add(at)
                at = self.parent(at)
        return self

    def parent(self, run: str) -> str | None:
        """The run whose full checkpoint is the base of `run`."""
        base = self.runs[run].base or ""
        return base.removeprefix("run:") if base.startswith("run:") else None

    def base_of(self, named: str | None) -> str:
        """Name of a base in the registry: of a base or run that is named, or the first base."""
        return (named or next(iter(self.bases))).removeprefix("run:")

    def _references(self) -> Iterator[tuple[str, str, list[str]]]:
        bases = [*self.bases, *(f"run:{name}" for name in self.runs)]
        for name, run in self.runs.items():
            if run.base is not None:
                yield f"runs.{name}.base", run.base, bases
            if run.data is not None:
                yield f"runs.{name}.data", run.data, list(self.data)
        for name, server in self.servers.items():
            yield f"servers.{name}.base", server.base, bases
        for name, one in self.evaluations.items():
            at = f"evaluations.{name}"
            if isinstance(one, Compared):
                yield from ((f"{at}.of", other, list(self.evaluations)) for other in one.of)
            elif isinstance(one, Judged):
                yield f"{at}.of", one.of, list(self.evaluations)
            elif one.kind == "command":
                yield from ((f"{at}.after", run, list(self.runs)) for run in one.after)
            else:
                yield f"{at}.data", one.data, list(self.data)
                if one.of is not None:
                    yield f"{at}.of", one.of, list(self.runs)
                if isinstance(one, Served):
                    yield f"{at}.server", one.server, list(self.servers)

    def _paths(self) -> Iterator[tuple[str, str]]:
        for card in self.cards:
            yield f"cards.{card.label}.of", card.of
        for table in self.tables:
            if table.each is not None:
                yield f"tables.{table.id}.each", table.each.of
            ofs = [*(row.of for row in table.rows), *(column.of for column in table.columns)]
            yield from ((f"tables.{table.id}", of) for of in ofs if of)
            for cell in (cell for row in table.rows for cell in row.cells.values()):
                named = [cell.of, cell.over, *PATH_IN_TEXT.findall(cell.text or "")]
                yield from ((f"tables.{table.id}", path) for path in named if path)
        for figure in self.figures:
            for series in getattr(figure, "series", ()):
                for point in getattr(series, "points", (series,)):
                    yield f"figures.{figure.id}", point.of

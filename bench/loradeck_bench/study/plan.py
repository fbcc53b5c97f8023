"""A study as steps with digests: what depends on what, what is done, what cannot be done and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loradeck_bench.study.cutting import cut
from loradeck_bench.study.format.study import Study
from loradeck_bench.study.format.work import Command, Compared, Evaluation, Judged, Loss, Run, Served, Source
from loradeck_bench.study.inputs import FILES, as_sets, choose_source, digest_of, fill, placeholders
from loradeck_bench.study.place import Place
from loradeck_registry.errors import InvalidError, NotFoundError

ResolveRecipe = Callable[[str, Sequence[str]], Mapping[str, Any]]
"""A recipe by name or path and `--set` values -> everything it says, inherited keys included. Raises InvalidError or
NotFoundError."""


@dataclass(frozen=True)
class Judge:
    """An OpenAI-compatible endpoint that scores answers."""

    endpoint: str
    model: str


@dataclass(frozen=True)
class Planned:
    """A step. `id` is `bases/NAME`, `runs/NAME` or `evaluations/NAME`; `after` are ids that must be done before."""

    id: str
    title: str
    digest: str
    after: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    expected: float | None = None
    """Seconds, as the study file states them."""
    blocked: str | None = None
    """Why it cannot be done here, and how to change that."""

    @property
    def name(self) -> str:
        """Its name in the study file."""
        return self.id.partition("/")[2]


class Plan:
    """All steps of a study, in an order in which they can be done."""

    def __init__(
        self,
        study: Study,
        file: Path,
        place: Place,
        resolve_recipe: ResolveRecipe,
        judge: Judge | None = None,
        embedding_model: Path | None = None,
    ) -> None:
        """Raises InvalidError for a recipe, key or placeholder that is wrong, NotFoundError for an unknown recipe."""
        self.study = study
        self.place = place
        self.judge = judge
        self.embedding_model = embedding_model
        self.sources: dict[str, Source | None] = {}
        for name, data in study.data.items():
            source = choose_source(data, place.data)
            self.sources[name] = cut(source, data.cut, place.root / "cut") if source and data.cut else source
        self.steps: dict[str, Planned] = {}
        self._folder = file.parent
        self._resolve = resolve_recipe
        for name in self._used_bases():
            base = study.bases[name]
            self._add(Planned(f"bases/{name}", f"base {name}", digest_of(base.model_dump()), inputs=base.model_dump()))
        for name in self._runs_in_order():
            self._add(self._run(name, study.runs[name]))
        for name in self._evaluations_in_order():
            self._add(self._evaluation(name, study.evaluations[name]))

    def of(self, root: str) -> list[Planned]:
        """The steps below `bases`, `runs` or `evaluations`."""
        return [step for step in self.steps.values() if step.id.startswith(f"{root}/")]

    def recipe(self, run: Run) -> str:
        """The recipe of a run as `loradeck train` takes it: a file beside the study file, or a shipped name."""
        beside = self._folder / run.recipe
        return str(beside.absolute()) if beside.is_file() else run.recipe

    def names(self) -> dict[str, str]:
        """What `${…}` means in settings and commands."""
        files = {
            f"{name}.{file}": text
            for name, source in self.sources.items()
            if source is not None
            for file in FILES
            if (text := getattr(source, file)) is not None
        }
        return {**files, "registry": str(self.place.registry.absolute())}

    def settings(self, run: Run, *, without_data: bool = False) -> list[str]:
        """`--set` values of a run: those that go with its data first. `without_data` leaves out what names a data file,
        so that the recipe's own statement of its data counts."""
        names = self.names()
        source = self.sources[run.data] if run.data and not without_data else None
        own = {**(source.set if source else {}), **run.set}
        if source is not None and source.train is not None:
            own = {"data.source": source.train, **own}
        if without_data:
            own = {key: value for key, value in own.items() if not placeholders(value)}
        return as_sets(fill(own, names))

    def _add(self, step: Planned) -> None:
        self.steps[step.id] = step

    def _used_bases(self) -> list[str]:
        study = self.study
        named = [run.base for run in study.runs.values()] + [server.base for server in study.servers.values()]
        named += [one.base for one in study.evaluations.values() if isinstance(one, Loss)]
        used = {study.base_of(name) for name in named if not (name or "").startswith("run:")}
        return [name for name in study.bases if name in used]

    def _base_id(self, named: str | None) -> str:
        base = self.study.base_of(named)
        return f"runs/{base}" if (named or "").startswith("run:") else f"bases/{base}"

    def _runs_in_order(self) -> list[str]:
        ordered: list[str] = []

        def visit(name: str) -> None:
            parent = self.study.parent(name)
            if parent is not None:
                visit(parent)
            if name not in ordered:
                ordered.append(name)

        for name in self.study.runs:
            visit(name)
        return ordered

    def _run(self, name: str, run: Run) -> Planned:
        parent = self._base_id(run.base)
        used = [run.data] if run.data else []
        blocked = self._missing_data([*used, *self._named_data(run.set)]) or _missing_packages(run)
        inputs: dict[str, Any] = {"loradeck": version("loradeck"), "base": self.steps[parent].digest}
        try:
            inputs["recipe"] = dict(self._resolve(self.recipe(run), self.settings(run)))
        except (InvalidError, NotFoundError) as error:
            if blocked is None:
                raise type(error)(f"`runs.{name}`: {error.message}", reason=error.reason, field=name) from error
        title = run.title or name
        return Planned(f"runs/{name}", title, digest_of(inputs), (parent,), inputs, run.seconds, blocked)

    def _evaluations_in_order(self) -> list[str]:
        """Those that look at results of others come last."""
        late = {name for name, one in self.study.evaluations.items() if isinstance(one, Judged | Compared)}
        judged = [name for name in late if isinstance(self.study.evaluations[name], Judged)]
        first = [name for name in self.study.evaluations if name not in late]
        return [*first, *(n for n in self.study.evaluations if n in judged), *sorted(late - set(judged))]

    def _evaluation(self, name: str, one: Evaluation) -> Planned:
        own: dict[str, Any] = one.model_dump(exclude={"title", "seconds"})
        after: list[str] = []
        blocked = self._missing_data(self._named_data(own))
        if blocked is None:
            own = fill(own, self.names() | {"registry": "registry"})
        if isinstance(one, Served | Loss):
            blocked = blocked or self._missing_data([one.data])
            source = self.sources[one.data]
            own["data"] = source.model_dump(exclude={"note", "set", "train", "database"}) if source else None
            base = self.study.servers[one.server].base if isinstance(one, Served) else one.base
            if isinstance(one, Served):
                own["server"] = self.study.servers[one.server].model_dump(exclude={"base"})
                own["embedding"] = str(self.embedding_model) if one.embedding and self.embedding_model else None
            if base is not None or isinstance(one, Served) or one.of is None:
                after.append(self._base_id(base))
            if one.of is not None:
                after.append(f"runs/{one.of}")
        elif isinstance(one, Judged):
            after.append(f"evaluations/{one.of}")
            if self.judge is None:
                blocked = blocked or "no judge was given: --judge URL --judge-model NAME"
            else:
                own["judge"] = [self.judge.endpoint, self.judge.model]
        elif isinstance(one, Compared):
            after += [f"evaluations/{other}" for other in one.of]
        else:
            assert isinstance(one, Command)
            after += [f"runs/{other}" for other in one.after]
        inputs = {
            "loradeck": version("loradeck"), "evaluation": own, "of": [self.steps[step].digest for step in after]
        }  # fmt: skip
        return Planned(
            f"evaluations/{name}", one.title or name, digest_of(inputs), tuple(dict.fromkeys(after)), inputs,
            one.seconds, blocked,
        )  # fmt: skip

    def _named_data(self, settings: Any) -> list[str]:
        """The data sets that placeholders in settings name."""
        return [name for named in placeholders(settings) if (name := named.partition(".")[0]) in self.sources]

    def _missing_data(self, names: Sequence[str]) -> str | None:
        for name in names:
            if self.sources[name] is None:
                data = self.study.data[name]
                return f"no data {name} ({data.what}): {data.get or f'loradeck study data {self.place.study} --fetch'}"
        return None


def _missing_packages(run: Run) -> str | None:
    missing = [package for package in run.needs if find_spec(package) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} is not installed: {run.get or 'pip install ' + ' '.join(missing)}"

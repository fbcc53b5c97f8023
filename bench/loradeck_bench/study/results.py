"""The results of a study by path, and values as people read them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_bench.report.units import duration, size
from loradeck_bench.study.format.pages import Show
from loradeck_bench.study.state import State
from loradeck_registry.bases.known import known_base


@dataclass(frozen=True)
class Value:
    """A measured value, or why there is none. `low` and `high` bound its 95 % interval where the result has one."""

    value: Any = None
    low: float | None = None
    high: float | None = None
    why: str = ""


class Results:
    """What bases, runs, evaluations and data offer to tables and figures.

    A base offers `source`, and `rows` and `hidden` of its embedding. A run offers the report of `train run --json`,
    `recipe` (as resolved), `seconds_per_epoch` and `epochs`; an evaluation what its command wrote; a data set `what`
    and `source`.
    """

    def __init__(self, state: State, failed: Mapping[str, str]) -> None:
        self._state = state
        self._failed = failed
        self._tree: dict[str, dict[str, Any]] = {"bases": {}, "runs": {}, "evaluations": {}, "data": {}}
        for one in state.steps.values():
            root, _, name = one.step.id.partition("/")
            if one.outcome is not None and root in self._tree:
                self._tree[root][name] = dict(one.outcome.result)
        for name, result in self._tree["runs"].items():
            _add_of_run(result, state.plan.steps[f"runs/{name}"].inputs["recipe"])
        for name, base in state.plan.study.bases.items():
            self._tree["bases"][name] = {**self._tree["bases"].get(name, {}), **_shape(base.source)}
        for name, source in state.plan.sources.items():
            self._tree["data"][name] = {
                "what": state.plan.study.data[name].what,
                "source": None if source is None else source.test or source.train,
                "note": "" if source is None else source.note,
            }

    def get(self, path: str) -> Value:
        """The value at `root/name/key/…`."""
        root, _, rest = path.partition("/")
        name, _, keys = rest.partition("/")
        if name not in self._tree[root]:
            return Value(why=self._why(f"{root}/{name}"))
        at: Any = self._tree[root][name]
        parts = keys.split("/") if keys else []
        for number, part in enumerate(parts):
            inner = _child(at, part)
            if inner is None:
                # A name may have the separator in it: a model's, in the name of a metric.
                whole = "/".join(parts[number:])
                inner = _child(at, whole)
                return Value(why=_absent(at, part, path)) if inner is None else _bounded(inner, at, whole)
            if number == len(parts) - 1:
                return _bounded(inner, at, part)
            at = inner
        return Value(at)

    def tree(self) -> Mapping[str, Any]:
        """All results, for programs."""
        return self._tree

    def _why(self, step: str) -> str:
        if step in self._failed:
            return "failed"
        one = self._state.steps.get(step)
        if one is None:
            return "not part of this scale"
        needed = next((other for other in one.step.after if other in self._failed), None)
        return one.why or (f"needs {needed}, which failed" if needed else "not done yet")


def _shape(source: str) -> dict[str, Any]:
    """What a base's configuration says, without its weights: from its record, or from its folder."""
    known = known_base(source)
    if known is not None:
        return {"source": source, "rows": known.config["vocab_size"], "hidden": known.config["hidden_size"]}
    folder = loradeck_pocket.BASE if source == "pocket:base" else Path(source.partition("dir:")[2] or "-").expanduser()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"source": source}
    return {"source": source, "rows": config.get("vocab_size"), "hidden": config.get("hidden_size")}


def _absent(at: Any, part: str, path: str) -> str:
    """Why a result has nothing at a key: null is an answer, and a recipe leaves to defaults what it does not set."""
    if isinstance(at, Mapping) and part in at:
        return ""
    return "not set" if "/recipe/" in path else "not measured"


def _add_of_run(result: dict[str, Any], recipe: Mapping[str, Any]) -> None:
    result["recipe"] = recipe
    history = result.get("loss_history") or []
    epochs = history[-1].get("epoch") if history else None
    epochs = epochs or (recipe.get("optimisation") or {}).get("epochs")
    result["epochs"] = epochs
    if epochs and result.get("training_seconds"):
        result["seconds_per_epoch"] = result["training_seconds"] / epochs


def _child(at: Any, part: str) -> Any:
    if isinstance(at, Mapping):
        # A metric of a model is named after it, as in `bert_score_f1:MODEL`.
        longer = [key for key in at if str(key).startswith(f"{part}:")] if part not in at else []
        return at.get(part if not longer else longer[0])
    if isinstance(at, Sequence) and not isinstance(at, str):
        if part.lstrip("-").isdigit():
            number = int(part)
            return at[number] if -len(at) <= number < len(at) else None
        return next((one for one in at if isinstance(one, Mapping) and one.get("name") == part), None)
    return None


def _bounded(value: Any, parent: Any, key: str) -> Value:
    bounds = _child(parent.get("intervals") or {}, key) if isinstance(parent, Mapping) else None
    return Value(value, *bounds) if bounds else Value(value)


def shown(value: Any, show: Show | None, digits: int | None = None) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(inner, None)}" for key, inner in value.items())
    if isinstance(value, list | tuple) and not value:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(inner, None) for inner in value)
    if not isinstance(value, int | float) or show == "text":
        return str(value)
    match show:
        case "number":
            return f"{value:,.{3 if digits is None else digits}f}"
        case "integer":
            return f"{value:,.0f}"
        case "percent":
            return f"{100 * value:.{1 if digits is None else digits}f} %"
        case "bytes":
            return size(value)
        case "gib":
            return f"{value / 2**30:.{2 if digits is None else digits}f} GiB"
        case "duration":
            return duration(value)
        case "hours":
            return f"{value / 3600:.{2 if digits is None else digits}f}"
        case "minutes":
            return f"{value / 60:.{1 if digits is None else digits}f}"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if abs(value) >= 10_000 else str(value)

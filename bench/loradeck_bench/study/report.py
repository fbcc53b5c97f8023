"""The report of a study: tables and figures from what is there, as JSON for programs and one HTML page for people."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from loradeck_bench.machine import machine, versions
from loradeck_bench.report.html import pages
from loradeck_bench.study.figures import make_figure
from loradeck_bench.study.plan import Plan
from loradeck_bench.study.published import published
from loradeck_bench.study.results import Results, shown
from loradeck_bench.study.state import State
from loradeck_bench.study.tables import make_table

Report = dict[str, Any]
LEFT_OUT = (
    ("failed", "failed"), ("not_parsed", "replies not parsed"), ("not_answered", "without an answer to judge"),
    ("without_reference", "without a reference"), ("too_long", "too long"),
)  # fmt: skip
"""What the results of steps count that does not enter their figures, and how the report says it."""


def make_report(plan: Plan, state: State, failed: Mapping[str, str], unfinished: str = "") -> tuple[Report, Report]:
    """The report, whatever of the study is done, and the pictures of its figures by id.

    `tables` and `figures` are by id; `seconds` is the time that the steps took, together with what earlier calls did
    of them; `steps` says how each stands.
    """
    study = plan.study
    results = Results(state, failed)
    paper = published(study.published) if study.published else None
    made = {figure.id: make_figure(figure, results, paper) for figure in study.figures}
    report: Report = {
        "title": study.title,
        "base": f"{', '.join(study.bases[one.name].source for one in plan.of('bases'))}, scale {plan.place.scale}",
        "study": plan.place.study,
        "scale": plan.place.scale,
        "about": study.about,
        "publication": paper.title if paper else "",
        "differs": list(study.differs),
        "created": f"{datetime.now():%Y-%m-%d %H:%M}",
        "seconds": state.wall_seconds(),
        "headline": [_card(card.model_dump(), results) for card in study.cards],
        "tables": {table.id: make_table(table, results, paper) for table in study.tables},
        "figures": {name: data for name, (data, _) in made.items()},
        "data": dict(results.tree()["data"]),
        "steps": _steps(state, failed),
        "methods": _methods(results),
        "machine": machine(),
        "versions": versions(),
    }
    if unfinished:
        report["unfinished"] = unfinished
    return report, {name: picture for name, (_, picture) in made.items()}


def write_report(report: Report, pictures: Mapping[str, str | None], folder: Path) -> Path:
    """Write report.json and report.html into `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render(report, pictures), encoding="utf-8")
    return page


def render(report: Report, pictures: Mapping[str, str | None]) -> str:
    """The HTML of a report: one file that asks nothing of the network."""
    return pages().get_template("study.html").render(report=report, pictures=pictures)


def _card(card: dict[str, Any], results: Results) -> dict[str, str]:
    found = results.get(f"{card['of']}/{card['key']}")
    value = shown(found.value, card["show"], card["digits"]) if found.value is not None else found.why
    return {"label": card["label"], "value": value, "note": card["note"]}


def _steps(state: State, failed: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for one in state.steps.values():
        row: dict[str, Any] = {"step": one.step.id, "title": one.step.title, "state": one.state}
        if one.step.id in failed:
            row |= {"state": "failed", "why": failed[one.step.id]}
        elif one.why:
            row["why"] = one.why
        elif one.state == "left" and (needed := [other for other in one.step.after if other in failed]):
            row["why"] = f"needs {needed[0]}, which failed"
        if one.outcome is not None:
            row |= {"seconds": one.outcome.seconds, "created": one.outcome.created}
            if left_out := [
                f"{one.outcome.result[key]} {what}" for key, what in LEFT_OUT if one.outcome.result.get(key)
            ]:
                row["left_out"] = ", ".join(left_out)
        rows.append(row)
    return rows


def _methods(results: Results) -> dict[str, str]:
    """How each metric was computed, once for all evaluations that say the same."""
    found: dict[str, str] = {}
    for result in results.tree()["evaluations"].values():
        methods = result.get("methods")
        # A command's result is its own: `bench train` has a list of trainings under this name.
        for name, how in (methods if isinstance(methods, Mapping) else {}).items():
            found.setdefault(name, how)
    return found

"""Figures of a report: bars with whiskers, curves, points through runs; the data beside the picture."""

from typing import Any

import numpy as np

from loradeck_bench.report.canvas import PALETTE, embedded, styled, subplots
from loradeck_bench.study.format.pages import Bars, Curves, Figure, Points
from loradeck_bench.study.published import Cell, Paper
from loradeck_bench.study.results import Results
from loradeck_bench.study.tables import published_notes

COLOURS = (*PALETTE, "#9aa55f", "#6c8ebf", "#c58b3b", "#7a5195")


def make_figure(figure: Figure, results: Results, paper: Paper | None) -> tuple[dict[str, Any], str | None]:
    """The figure in the form of report files, and its picture as a data address (None if there is nothing to draw)."""
    part = paper.parts.get(figure.id) if paper else None
    notes = [*figure.notes, *published_notes(part)]
    made: dict[str, Any] = {
        "title": figure.title,
        "published_title": part.title if part else "",
        "kind": figure.kind,
        "notes": notes,
    }
    if isinstance(figure, Bars):
        made["groups"] = [group.name for group in figure.groups]
        made["series"] = _bars(figure, results, paper)
        return made, _draw_bars(figure, made["series"])
    if isinstance(figure, Curves):
        made["series"] = _curves(figure, results)
        return made, _draw_lines(figure, made["series"], figure.x_label, log_y=figure.log_y)
    if isinstance(figure, Points):
        made["series"] = _points(figure, results)
        return made, _draw_lines(figure, made["series"], figure.x_label, log_x=figure.log_x, marks=True)
    return made, None


def _bars(figure: Bars, results: Results, paper: Paper | None) -> list[dict[str, Any]]:
    rows = []
    for series in figure.series:
        values = [results.get(f"{series.of}/{group.key}") for group in figure.groups]
        said = [_said(paper, f"{series.published}/{group.published}") for group in figure.groups]
        rows.append(
            {
                "name": series.name,
                "values": [one.value for one in values],
                "intervals": [None if one.low is None else [one.low, one.high] for one in values],
                "published": [None if one is None else one.value for one in said],
                "why": next((one.why for one in values if one.value is None), ""),
            }
        )
    return rows


def _said(paper: Paper | None, path: str) -> Cell | None:
    """The published cell at part/row/column; a name may hold the separator, so the parts are looked for."""
    parts = path.strip("/").split("/")
    for end in range(2, len(parts)):
        found = paper.cell(parts[0], "/".join(parts[1:end]), "/".join(parts[end:])) if paper else None
        if found is not None:
            return found
    return None


def _curves(figure: Curves, results: Results) -> list[dict[str, Any]]:
    rows = []
    for series in figure.series:
        found = results.get(f"{series.of}/{series.key}")
        entries = [one for one in found.value or () if series.x in one and series.y in one]
        points = [[float(one[series.x]), float(one[series.y])] for one in entries]
        rows.append({"name": series.name, "points": points, "why": found.why})
    return rows


def _points(figure: Points, results: Results) -> list[dict[str, Any]]:
    rows = []
    for line in figure.series:
        points, why = [], ""
        for point in line.points:
            values = [
                at if isinstance(at, float) else (found := results.get(f"{point.of}/{at}")).value
                for at in (point.x, point.y)
            ]
            if all(isinstance(one, int | float) for one in values):
                points.append([float(one) for one in values])
            else:
                why = found.why
        rows.append({"name": line.name, "points": points, "why": why})
    return rows


@styled
def _draw_bars(figure: Bars, series: list[dict[str, Any]]) -> str | None:
    present = [one for one in series if any(value is not None for value in one["values"])]
    if not present:
        return None
    picture, (pane,) = subplots(1, width=min(10.5, 0.42 * len(present) * len(figure.groups) + 3.4))
    width = 0.8 / len(present)
    marked = False
    for position, (one, colour) in enumerate(zip(present, COLOURS * len(present), strict=False)):
        places = np.arange(len(figure.groups)) + (position - (len(present) - 1) / 2) * width
        values = [float(value) if value is not None else np.nan for value in one["values"]]
        bounds = [b or [v, v] for b, v in zip(one["intervals"], values, strict=True)]
        whiskers = np.array(
            [[max(0, v - low), max(0, high - v)] for v, (low, high) in zip(values, bounds, strict=True)]
        )
        bars = pane.bar(places, values, width * 0.94, color=colour, label=one["name"], yerr=whiskers.T, capsize=2)
        pane.bar_label(
            bars, ["" if np.isnan(v) else f"{v:.2g}" if v < 1 else f"{v:.3g}" for v in values], padding=2, fontsize=7
        )
        for place, value in zip(places, one["published"], strict=True):
            if isinstance(value, int | float):
                label = None if marked else "published"
                pane.plot(
                    [place],
                    [value],
                    marker="D",
                    markersize=5,
                    color="#23303d",
                    markeredgecolor="white",
                    linestyle="",
                    label=label,
                )
                marked = True
    pane.set_xticks(range(len(figure.groups)), [group.name for group in figure.groups])
    pane.set_ylabel(figure.y_label)
    pane.margins(y=0.15)
    picture.legend(loc="outside lower center", ncols=min(6, len(present) + marked))
    return embedded(picture)


@styled
def _draw_lines(
    figure: Curves | Points,
    series: list[dict[str, Any]],
    x_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = False,
) -> str | None:
    present = [one for one in series if one["points"]]
    if not present:
        return None
    picture, (pane,) = subplots(1, width=7.2)
    for one, colour in zip(present, COLOURS * len(present), strict=False):
        x, y = zip(*one["points"], strict=True)
        pane.plot(x, y, color=colour, linewidth=1.4, label=one["name"], marker="o" if marks else None, markersize=4)
    if log_x:
        pane.set_xscale("log")
    if log_y:
        pane.set_yscale("log")
    pane.set(xlabel=x_label, ylabel=figure.y_label)
    picture.legend(loc="outside lower center", ncols=min(4, len(present)))
    return embedded(picture)

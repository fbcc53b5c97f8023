"""Renders a report mapping as one HTML file that asks nothing of the network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from loradeck_bench.report.canvas import NAMES
from loradeck_bench.report.load_figures import latency_bars, storage_bars, swap_timeline
from loradeck_bench.report.quality_figures import MODELS, confusion_picture, loss_curves, metric_bars
from loradeck_bench.report.units import duration, fixed, size

TITLES = {
    "classification": "Classification",
    "short_qa": "Question answering, short answers",
    "long_qa": "Question answering, long answers",
}


def pages() -> Environment:
    """The templates of all pages, with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("loradeck_bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": fixed, "bytes": size, "duration": duration}
    return environment


def render(report: Mapping[str, Any]) -> str:
    """The HTML of a report. Sections whose key is absent are left out, so a broken run still shows what it measured."""
    return (
        pages()
        .get_template("report.html")
        .render(report=report, figures=figures(report), titles=TITLES, names=NAMES, models=MODELS)
    )


def write_report(report: Mapping[str, Any], folder: Path, name: str = "report") -> tuple[Path, Path]:
    """Write `<name>.json` and `<name>.html` into `folder`; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / f"{name}.json", folder / f"{name}.html"
    data.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    return data, page


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure as a data address, None where there is nothing to draw."""
    tasks = report.get("tasks", {})
    return {
        "loss": loss_curves(report.get("training", {})),
        "metrics": {task: metric_bars(task, models) for task, models in tasks.items()},
        "confusion": {
            model: confusion_picture(result["confusion"])
            for model, result in tasks.get("classification", {}).items()
            if "confusion" in result
        },
        "latency": latency_bars(report.get("load", {}).get("per_adapter", {})),
        "storage": storage_bars(report.get("storage", [])),
        "swap": swap_timeline(report.get("swap", {})),
    }

"""The figures at the top of a report."""

from collections.abc import Mapping
from typing import Any

from loradeck_bench.report.units import duration, size


def headline(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Cards of `value`, `label` and `note` from a complete report."""
    tasks = report["tasks"]
    clf = tasks["classification"]
    cards = [
        {
            "value": f"{clf['lora']['macro_f1']:.3f}",
            "label": "macro F1 of the LoRA classifier",
            "note": ", ".join(f"{NAMES[m]} {clf[m]['macro_f1']:.3f}" for m in ("base", "full", "tfidf") if m in clf),
        }
    ]
    for task, label in (("short_qa", "short answers"), ("long_qa", "long answers")):
        cards.append(
            {
                "value": f"{tasks[task]['lora']['rouge_1']:.3f}",
                "label": f"ROUGE-1 of {label}, LoRA",
                "note": f"base {tasks[task]['base']['rouge_1']:.3f}",
            }
        )
    adapter = next(row for row in report["storage"] if row["kind"] == "adapter")
    full = next(row for row in report["storage"] if row["kind"] == "full")
    swap = report["swap"]
    cards += [
        {
            "value": size(adapter["bytes"]),
            "label": "one adapter",
            "note": f"{adapter['ratio_to_full']:.1%} of a full checkpoint ({size(full['bytes'])})",
        },
        {
            "value": f"{swap['failed']} failed, {swap['wrong_revision']} wrong",
            "label": f"of {swap['requests']} requests during a swap",
            "note": f"first new answer after {duration(swap['seconds']['first_new_answer'])}",
        },
        {
            "value": f"{report['load']['latency_ms']['p50']:.0f} ms" if report["load"]["latency_ms"] else "–",
            "label": "median latency under load",
            "note": f"{report['load']['requests_per_second']:.1f} requests/s, {report['load']['failed']} failed",
        },
    ]
    return cards


NAMES = {"base": "base", "full": "full", "tfidf": "TF-IDF"}

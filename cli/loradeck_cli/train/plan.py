"""`loradeck train plan`: what a recipe would need."""

from typing import Any

import click
from rich.table import Table

from loradeck_cli.train.options import duration, emit, mebibytes, open_registry, read_recipe, recipe_options, spinner
from loradeck_registry.errors import InvalidError


@click.command()
@click.argument("recipe")
@recipe_options
@click.option("--gpu", metavar="NAME", help="Plan for this GPU (RTX-4080, A100-80GB, H100, …) instead of this machine.")
@click.option("--batch-sizes", default="1,4,16,64", show_default=True, metavar="N,N", help="Sizes to compare.")
def plan(
    recipe: str,
    base: str | None,
    data: str | None,
    sets: tuple[str, ...],
    url: str | None,
    json_path: str | None,
    gpu: str | None,
    batch_sizes: str,
) -> None:
    """Say what RECIPE would train, what it would need, and whether the result could be served; trains nothing."""
    loaded = read_recipe(recipe, base, data, sets, None)
    sizes = _sizes(batch_sizes)
    with spinner("planning"):
        from loradeck_train.plan.plan import plan as make_plan

        figures = make_plan(loaded, open_registry(url), gpu=gpu, batch_sizes=sizes).as_json()
    emit(figures, _rows(figures), json_path, _alternatives(figures), *_statistics(figures))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InvalidError(f"bad --batch-sizes {text!r}: use numbers such as 1,4,16", field="batch-sizes")
    return sizes


def _rows(figures: dict[str, Any]) -> dict[str, str | None]:
    memory = figures["memory"]
    read = not figures["stated"]
    return {
        "base": f"{figures['base']}, {figures['parameters']:,} parameters"
        + ("" if read else " (from its record; nothing was downloaded)"),
        "trains": f"{figures['trainable_parameters']:,} parameters, {figures['trainable_share']:.2%} "
        f"({figures['method']})",
        "publishes": f"{figures['published_bytes']:,} bytes of tensors ({figures['publishes']})",
        "data": f"{figures['rows']:,} rows, {figures['validation_rows']:,} for validation"
        if read
        else f"{figures['rows']:,} rows, as stated under data.expected",
        "labels": ", ".join(figures.get("labels", ())) or None,
        "tokens": f"{figures['prompt_tokens']:,} prompt + {figures['answer_tokens']:,} answer per epoch, longest "
        f"{figures['longest']} of {figures['max_length']}"
        if read
        else None,
        "truncated": f"{figures['truncated']} examples" if read else None,
        "steps": f"{figures['steps']:,} ({figures['steps_per_epoch']:,} per epoch), {figures['tokens']:,} tokens",
        "device": f"{figures['device']}, {mebibytes(figures['device_memory_bytes'])}",
        "memory": f"{mebibytes(memory['peak'])} at most: "
        + ", ".join(
            f"{name} {mebibytes(memory[name])}"
            for name in ("weights", "gradients", "optimizer", "activations", "logits")
        )
        + f"; loading {mebibytes(memory['load_peak'])}, checkpoints {mebibytes(memory['checkpoint_peak'])}",
        "fits": "yes" if figures["fits"] else "NO: see the table for what would",
        "time": f"{duration(figures['seconds'])}, {figures['seconds_per_step']:.3g} s per step",
        "to serve": "; ".join(figures["servable"]),
        "warnings": "; ".join(figures["warnings"]) or None,
        "problems": "; ".join(figures["problems"]) or None,
        "substituted": "; ".join(figures["substitutions"]) or "nothing",
    }


def _alternatives(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("method", "batch", "memory", "tokens/s", "fits"):
        table.add_column(name, justify="left" if name in ("method", "fits") else "right")
    for found in figures["alternatives"]:
        table.add_row(
            found["method"],
            str(found["batch_size"]),
            mebibytes(found["peak_bytes"]),
            f"{found['tokens_per_second']:,.0f}",
            "yes" if found["fits"] else "no",
        )
    return table


def _statistics(figures: dict[str, Any]) -> list[Table]:
    rows = figures.get("statistics") or []
    if not rows:
        return []
    names = list(rows[0])
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{row[n]:,.1f}" if isinstance(row[n], float) else str(row[n]) for n in names))
    return [table]

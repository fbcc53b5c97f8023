"""`loradeck train`: run a recipe, or say what it would do."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from loradeck_registry.errors import InvalidError, PreconditionError, UnimplementedError

if TYPE_CHECKING:
    from loradeck_registry.registry import Registry
    from loradeck_train.recipe.settings import Recipe

LATER = {
    "data": "Build classification and QA sets from raw text.",
    "extract": "Make a LoRA from a full checkpoint (SVD).",
    "merge": "Merge an adapter into a full checkpoint.",
}


@click.group()
def command() -> None:
    """Train adapters and full checkpoints from recipes, and publish them."""


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the figures as JSON to PATH, - for stdout."),
        click.option(
            "--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Registry of bases and revisions."
        ),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one recipe key (dotted)."),
        click.option("--data", metavar="SOURCE", help="Overrides data.source: a file, folder, pocket: or datasets:."),
        click.option("--base", metavar="REF", help="Overrides base: NAME[@…], hub:ORG/NAME or dir:FOLDER."),
    ):
        function = option(function)
    return function


@command.command()
@click.argument("recipe")
@_options
@click.option("--publish", metavar="NAME[@ALIAS]", help="Push the result under NAME, and move ALIAS to it.")
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint in the output folder.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run (default: build/train/RECIPE).")
def run(
    recipe: str,
    base: str | None,
    data: str | None,
    sets: tuple[str, ...],
    url: str | None,
    json_path: str | None,
    publish: str | None,
    resume: bool,
    output: Path | None,
) -> None:
    """Train RECIPE (a file, or a shipped recipe such as pocket/clf-lora) and publish what comes out."""
    from loradeck_bench.output import ensure_writable

    ensure_writable(json_path)
    loaded = _load(recipe, base, data, sets, publish)
    registry = _registry(url)
    if loaded.publish.name is not None and registry is None:
        raise InvalidError("to publish, name the registry with --registry", field="registry")
    folder = output or Path("build") / "train" / _slug(recipe)
    # Errors of the recipe come at once; only now are torch and transformers imported.
    with _spinner("starting"):
        from loradeck_train.run import run as run_training
    report = run_training(loaded, registry, folder, resume=resume, title=Path(recipe).stem)
    figures = report.as_json()
    rows = {
        "revision": figures["revision"] or f"not pushed; files in {report.folder}",
        "digest": figures["digest"],
        "size": f"{figures['bytes']:,} bytes",
        "loss": f"{figures['loss_history'][0]['loss']:.3f} to {figures['loss_history'][-1]['loss']:.3f}",
        "validation loss": None if figures["validation_loss"] is None else f"{figures['validation_loss']:.3f}",
        "trained": f"{figures['trainable_parameters']:,} parameters, {figures['trainable_share']:.2%} of the base",
        "time": f"{figures['training_seconds']:.1f} s training, {figures['seconds']:.1f} s in all",
        "tokens": f"{figures['tokens']:,}, {figures['tokens_per_second']:,.0f} per second",
        "peak memory": f"{figures['peak_bytes'] / 2**20:,.0f} MiB above the start",
        "truncated": f"{figures['truncated']} examples" if figures["truncated"] else None,
        "substituted": "; ".join(figures["substitutions"]) or None,
        "reload check": f"{figures['reload_check']['mean_difference']:.4f} nats from the trained model, "
        f"{figures['probe_distance']:.2f} from the base",
    }
    _emit(figures, rows, json_path)


@command.command()
@click.argument("recipe")
@_options
def plan(
    recipe: str, base: str | None, data: str | None, sets: tuple[str, ...], url: str | None, json_path: str | None
) -> None:
    """Say what RECIPE would train, on what and for how long in steps; trains nothing."""
    loaded = _load(recipe, base, data, sets, None)
    with _spinner("reading"):
        from loradeck_train.plan.plan import plan as make_plan

        made = make_plan(loaded, _registry(url))
    figures = made.as_json()
    rows = {
        "base": f"{figures['base']}, {figures['parameters']:,} parameters",
        "trains": f"{figures['trainable_parameters']:,} parameters, {figures['trainable_share']:.2%} "
        f"({figures['method']})",
        "publishes": f"{figures['published_bytes']:,} bytes of tensors",
        "data": f"{figures['rows']:,} rows, {figures['validation_rows']:,} for validation",
        "labels": ", ".join(figures["labels"]) or None,
        "tokens": f"{figures['prompt_tokens']:,} prompt + {figures['answer_tokens']:,} answer per epoch, longest "
        f"{figures['longest']} of {figures['max_length']}",
        "truncated": f"{figures['truncated']} examples",
        "steps": f"{figures['steps']:,} ({figures['steps_per_epoch']:,} per epoch), {figures['tokens']:,} tokens",
        "to serve": "; ".join(figures["servable"]),
        "substituted": "; ".join(figures["substitutions"]) or "nothing",
        "not estimated": f"{', '.join(figures['not_estimated'])}: not implemented yet",
    }
    _emit(figures, rows, json_path)


@command.command()
@click.option("--json", "json_path", metavar="PATH", help="Write the names as JSON to PATH, - for stdout.")
def recipes(json_path: str | None) -> None:
    """List the shipped recipes."""
    from loradeck_train.recipe.files import shipped_recipes

    names = shipped_recipes()
    _emit({"recipes": names}, dict.fromkeys(names, ""), json_path)


def _load(recipe: str, base: str | None, data: str | None, sets: tuple[str, ...], publish: str | None) -> "Recipe":
    from loradeck_train.recipe.files import load_recipe

    overrides: dict[str, Any] = {}
    if base is not None:
        overrides["base"] = base
    if data is not None:
        overrides["data.source"] = data
    if publish is not None:
        name, separator, alias = publish.partition("@")
        overrides["publish.name"] = name
        if separator:
            overrides["publish.alias"] = alias
    return load_recipe(recipe, overrides, sets)


def _registry(url: str | None) -> "Registry | None":
    if url is None:
        return None
    from loradeck_registry.registry import Registry

    return Registry.open(url)


def _slug(recipe: str) -> str:
    path = Path(recipe)
    return path.stem if path.is_file() else recipe.removesuffix(".yaml").replace("/", "-")


def _spinner(text: str) -> Any:
    return Console(stderr=True).status(text)


def _emit(figures: dict[str, Any], rows: dict[str, str | None], json_path: str | None) -> None:
    content = json.dumps(figures, indent=2, ensure_ascii=False)
    if json_path == "-":
        sys.stdout.write(content + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    Console().print(table, highlight=False)
    if json_path is not None:
        try:
            Path(json_path).write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise PreconditionError(f"cannot write {json_path}: {error.strerror}") from error


def _later(name: str, text: str) -> click.Command:
    @click.command(name, help=f"{text} Not implemented yet.", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def refuse(arguments: tuple[str, ...]) -> None:
        raise UnimplementedError(f"`loradeck train {name}` is not implemented yet")

    return refuse


for _name, _text in LATER.items():
    command.add_command(_later(_name, _text))

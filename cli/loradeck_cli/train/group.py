"""`loradeck train`: run a recipe; planning and converting are in files beside this one."""

from pathlib import Path

import click

from loradeck_cli.train import data as train_data
from loradeck_cli.train.convert import extract, merge
from loradeck_cli.train.options import emit, open_registry, publish_option, read_recipe, recipe_options, spinner
from loradeck_cli.train.plan import plan
from loradeck_registry.errors import InvalidError


@click.group()
def command() -> None:
    """Train adapters and full checkpoints from recipes, and publish them."""


@command.command()
@click.argument("recipe")
@recipe_options
@publish_option
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
    loaded = read_recipe(recipe, base, data, sets, publish)
    registry = open_registry(url)
    if loaded.publish.name is not None and registry is None:
        raise InvalidError("to publish, name the registry with --registry", field="registry")
    folder = output or Path("build") / "train" / _slug(recipe)
    # Errors of the recipe come at once; only now are torch and transformers imported.
    with spinner("starting"):
        from loradeck_train.follow import follow
        from loradeck_train.loop.world import join
        from loradeck_train.run import run as run_training

        world = join()
    if not world.main:
        follow(loaded, registry, folder, resume=resume)
        return
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
    emit(figures, rows, json_path)


@command.command()
@click.option("--json", "json_path", metavar="PATH", help="Write the names as JSON to PATH, - for stdout.")
def recipes(json_path: str | None) -> None:
    """List the shipped recipes."""
    from loradeck_train.recipe.files import shipped_recipes

    names = shipped_recipes()
    emit({"recipes": names}, dict.fromkeys(names, ""), json_path)


@command.command()
@click.argument("name", type=click.Choice(["ddp", "fsdp", "deepspeed-zero2", "deepspeed-zero3"]))
def launcher(name: str) -> None:
    """Print the path of a shipped configuration for `accelerate launch --config_file`."""
    from importlib.resources import files

    click.echo(str(files("loradeck_train") / "launch" / f"{name}.yaml"))


def _slug(recipe: str) -> str:
    path = Path(recipe)
    return path.stem if path.is_file() else recipe.removesuffix(".yaml").replace("/", "-")


command.add_command(train_data.command)
command.add_command(plan)
command.add_command(merge)
command.add_command(extract)

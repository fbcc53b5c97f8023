"""`loradeck registry import`, `export` and `diff`: revisions from and to elsewhere, and side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from loradeck_cli import output
from loradeck_cli.registry import tables
from loradeck_cli.registry.options import checked_task, registry_options
from loradeck_registry.errors import InvalidError
from loradeck_registry.registry import Registry, Revision


@click.command("import")
@click.argument("name_and_source", nargs=-1, required=True, metavar="[NAME] SOURCE")
@click.option("--base", metavar="REF", help="Base it belongs to; not needed for a bundle.")
@click.option("--task", "task_path", type=click.Path(path_type=Path), help="The task, as a JSON file.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Precision to store.")
@click.option("--initial", type=click.Path(path_type=Path), help="Folder of the weights a PiSSA-like start began with.")
@click.option("--dry-run", is_flag=True, help="Say what would be converted or refused, and change nothing.")
@click.option("--alias", help="Alias to point at the new revision.")
@click.option("--who", "author", help="Who brings it in.")
@click.option("--licence", help="SPDX expression.")
@registry_options
def import_(
    url: str,
    json_path: str | None,
    name_and_source: tuple[str, ...],
    base: str | None,
    task_path: Path | None,
    **settings: Any,
) -> None:
    """Bring SOURCE in under NAME: a PEFT folder, a full checkpoint, hub:ORG/NAME, or a bundle file.

    An adapter is checked, and converted where that can be done exactly; a bundle keeps its name if none is given.
    """
    if len(name_and_source) > 2:
        raise InvalidError("give NAME and SOURCE, or a bundle file alone", field="source")
    name, source = name_and_source if len(name_and_source) == 2 else (None, name_and_source[0])
    registry = Registry.open(url)
    if Path(source).is_file():
        _import_bundle(registry, name, Path(source), json_path, base, task_path, settings)
        return
    if name is None or base is None:
        raise InvalidError(
            f"{source} is no bundle file, and to import a folder, give NAME, SOURCE and --base", field="base"
        )
    from loradeck_registry.bases.resolve import resolve_base
    from loradeck_registry.publish import read_json_file
    from loradeck_registry.transfer.importing import import_folder

    task = None if task_path is None else checked_task(read_json_file(task_path, "task"))
    with output.progress(f"reading {source}"):
        done = import_folder(
            registry, name, source, resolve_base(base, registry), task=task, task_for_tokens=_task_for, **settings
        )
    result: dict[str, Any] = {"findings": list(done.findings), "dry_run": done.revision is None}
    if done.facts is not None:
        result |= {"rank": done.facts.rank, "dtype": done.facts.dtype, "parameters": done.facts.parameters}
    if done.revision is not None:
        result |= output.revision_json(done.revision)

    def table() -> None:
        for finding in done.findings:
            output.line(f"- {finding}")
        if done.revision is None:
            output.line("can be served; nothing was changed (dry run)")
        else:
            tables.pushed(done.revision)

    output.emit(result, json_path, table)


def _import_bundle(
    registry: Registry,
    name: str | None,
    source: Path,
    json_path: str | None,
    base: str | None,
    task_path: Path | None,
    settings: Mapping[str, Any],
) -> None:
    from loradeck_registry.transfer.bundle import read_bundle

    odd = [key for key in ("dtype", "initial", "dry_run", "licence") if settings[key]]
    odd += [key for key, value in (("base", base), ("task", task_path)) if value is not None]
    if odd:
        raise InvalidError(f"a bundle comes in as it is: --{odd[0].replace('_', '-')} does not apply", field=odd[0])
    revision = read_bundle(registry, source, name, alias=settings["alias"], author=settings["author"])
    output.emit(output.revision_json(revision), json_path, lambda: tables.pushed(revision))


@click.command()
@click.argument("reference")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["peft", "bundle"]), default="peft", show_default=True,
    help="peft: a folder that PeftModel.from_pretrained loads; bundle: one tar file for `registry import`.",
)  # fmt: skip
@click.option("--base", metavar="REF", help="Where the adapter's base is now (default: where its manifest says).")
@registry_options
def export(url: str, json_path: str | None, reference: str, destination: Path, form: str, base: str | None) -> None:
    """Write a revision as a plain PEFT folder or as a bundle file."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    notes: list[str] = []
    with output.progress(f"writing {destination}"):
        if form == "bundle":
            from loradeck_registry.transfer.bundle import write_bundle

            write_bundle(registry, revision, destination)
        else:
            notes = _export_peft(registry, revision, destination, base)
    result = output.revision_json(revision) | {"destination": str(destination), "format": form, "notes": notes}

    def table() -> None:
        output.line(f"{revision} is in {destination}")
        for note in notes:
            output.line(f"- {note}")

    output.emit(result, json_path, table)


def _export_peft(registry: Registry, revision: Revision, destination: Path, base: str | None) -> list[str]:
    from loradeck_registry.bases.resolve import resolve_base
    from loradeck_registry.transfer.exporting import check_exportable, export_peft

    check_exportable(revision)
    stated = revision.manifest.base.reference
    if base is None and stated.startswith("dir:"):
        raise InvalidError(f"the base of {revision} was the folder {stated}: say where it is with --base", field="base")
    resolved = resolve_base(base or stated, registry)
    return export_peft(registry, revision, resolved.folder, destination)


@click.command()
@click.argument("left")
@click.argument("right")
@registry_options
def diff(url: str, json_path: str | None, left: str, right: str) -> None:
    """Compare two revisions: manifest fields, files, and how far the weights are apart."""
    from loradeck_registry.transfer.comparing import compare

    registry = Registry.open(url)
    one, two = registry.resolve(left), registry.resolve(right)
    found = compare(registry, one, two)
    result = {
        "left": output.revision_json(one),
        "right": output.revision_json(two),
        "fields": {path: {"left": a, "right": b} for path, (a, b) in found.fields.items()},
        "files": {path: {"left": a, "right": b} for path, (a, b) in found.files.items()},
        "modules": [
            {"module": m.module, "left": m.left, "right": m.right, "difference": m.difference, "relative": m.relative}
            for m in found.modules
        ],
    }
    output.emit(result, json_path, lambda: tables.comparison(str(one), str(two), found))


def _task_for(tokens: Mapping[int, str]) -> Mapping[str, Any]:
    from loradeck_tasks.defaults import default_task
    from loradeck_tasks.task import AddedToken

    added = tuple(AddedToken(content=content, id=number) for number, content in tokens.items())
    return default_task("generate", added_tokens=added).model_dump(mode="json", exclude_none=True)

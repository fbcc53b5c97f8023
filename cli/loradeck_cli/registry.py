"""`loradeck registry`: keep, show, move and verify revisions."""

from pathlib import Path
from typing import Any

import click

from loradeck_cli import registry_output as output
from loradeck_cli.registry_options import checked_task, registry_options
from loradeck_cli.registry_transfer import diff, export, import_
from loradeck_registry.errors import InvalidError, LoradeckError, UnimplementedError
from loradeck_registry.registry import Registry

LATER = {
    "gc": "Delete what nothing uses.",
    "sign": "Sign a revision.",
}


@click.group()
def command() -> None:
    """Keep, show, move and verify revisions in a folder."""


@command.command()
@registry_options
def init(url: str, json_path: str | None) -> None:
    """Make a registry in an absent or empty folder."""
    registry = Registry.init(url)
    output.emit({"registry": registry.url}, json_path, lambda: output.line(f"registry at {registry.url}"))


@command.command("add-base")
@click.argument("name")
@click.argument("source")
@click.option(
    "--reserve-tokens",
    type=click.IntRange(0, 4096),
    default=0,
    help="Rows that adapters' new tokens need: zero rows are appended as needed.",
)
@click.option("--alias", help="Alias to point at the new revision.")
@click.option("--author", help="Who adds it.")
@click.option("--licence", help="SPDX expression.")
@registry_options
def add_base(url: str, json_path: str | None, name: str, source: str, reserve_tokens: int, **settings: Any) -> None:
    """Store the base SOURCE (dir:FOLDER, hub:ORG/NAME or a name in the registry) under NAME."""
    from loradeck_registry.bases import add_base as add

    with output.progress(f"reading {source}"):
        revision = add(Registry.open(url), name, source, reserve_tokens=reserve_tokens, **settings)
    output.emit(output.revision_json(revision), json_path, lambda: output.pushed(revision))


@command.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="REF", help="Base it belongs to: a name, hub:ORG/NAME or dir:FOLDER.")
@click.option("--task", "task_path", type=click.Path(path_type=Path), help="The task, as a JSON file.")
@click.option("--alias", help="Alias to point at the new revision.")
@click.option("--author", help="Who publishes it.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--licence", help="SPDX expression.")
@registry_options
def push(
    url: str, json_path: str | None, name: str, folder: Path, base: str, task_path: Path | None, **settings: Any
) -> None:
    """Publish FOLDER as the next revision of NAME: an adapter (adapter_config.json) or a full checkpoint."""
    from loradeck_registry.bases import resolve_base
    from loradeck_registry.publish import push_folder, read_json_file

    registry = Registry.open(url)
    task = None if task_path is None else checked_task(read_json_file(task_path, "task"))
    with output.progress(f"reading {folder}"):
        resolved = resolve_base(base, registry)
        revision = push_folder(registry, name, folder, resolved, task=task, **settings)
    output.emit(output.revision_json(revision), json_path, lambda: output.pushed(revision))


@command.command()
@click.argument("reference")
@click.argument("destination", type=click.Path(path_type=Path))
@registry_options
def pull(url: str, json_path: str | None, reference: str, destination: Path) -> None:
    """Copy a revision's files, verified, into the absent or empty folder DESTINATION."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    with output.progress(f"pulling {revision}"):
        registry.pull(revision, destination)
    result = output.revision_json(revision) | {"destination": str(destination)}
    output.emit(result, json_path, lambda: output.line(f"{revision} is in {destination}"))


@command.command("list")
@click.argument("name", required=False)
@registry_options
def list_(url: str, json_path: str | None, name: str | None) -> None:
    """List all names, or the revisions of NAME."""
    registry = Registry.open(url)
    if name is None:
        rows = output.name_rows(registry)
        output.emit({"names": rows}, json_path, lambda: output.name_table(rows, registry.url))
    else:
        revisions = output.revision_rows(registry, name)
        output.emit({"name": name, "revisions": revisions}, json_path, lambda: output.revision_table(revisions, name))


@command.command()
@click.argument("reference")
@registry_options
def show(url: str, json_path: str | None, reference: str) -> None:
    """Show one revision: base, files, task, provenance, aliases."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    aliases = [alias for alias, entry in registry.aliases(revision.name).items() if entry.revision == revision.number]
    record = registry.record(revision)
    result = output.revision_json(revision) | {
        "aliases": aliases,
        "record": record,
        "manifest": revision.manifest.model_dump(mode="json", exclude_none=True),
    }
    output.emit(result, json_path, lambda: output.show(revision, aliases, record))


@command.command()
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("target", required=False)
@click.option("--expect", type=click.IntRange(0), help="Revision it must point to now; 0: it must not exist yet.")
@click.option("--who", default="", help="Who moves it (default: user@host).")
@click.option("--why", default="", help="Why, for the history.")
@registry_options
def alias(
    url: str,
    json_path: str | None,
    name: str,
    alias: str | None,
    target: str | None,
    expect: int | None,
    who: str,
    why: str,
) -> None:
    """Point NAME's ALIAS at TARGET (12, another alias, latest, sha256:…); without TARGET, show aliases."""
    registry = Registry.open(url)
    if target is None:
        if expect is not None or who or why:
            raise InvalidError("give the TARGET that the alias is to point to", field="target")
        registry.resolve(name if alias is None else f"{name}@{alias}")
        found = [entry for entry in registry.aliases(name).values() if alias in (None, entry.alias)]
        rows = [output.alias_json(entry) for entry in found]
        output.emit({"name": name, "aliases": rows}, json_path, lambda: output.alias_table(found, f"aliases of {name}"))
        return
    assert alias is not None
    entry = registry.move_alias(name, alias, target, expect=expect, who=who, why=why)
    output.emit(output.alias_json(entry), json_path, lambda: output.moved(entry))


@command.command()
@click.argument("name")
@click.argument("alias")
@click.option("--who", default="", help="Who moves it (default: user@host).")
@click.option("--why", default="", help="Why, for the history.")
@registry_options
def rollback(url: str, json_path: str | None, name: str, alias: str, who: str, why: str) -> None:
    """Point NAME's ALIAS back where it pointed before; again, further back."""
    entry = Registry.open(url).rollback(name, alias, who=who, why=why)
    output.emit(output.alias_json(entry), json_path, lambda: output.moved(entry))


@command.command()
@click.argument("name")
@click.argument("alias")
@registry_options
def history(url: str, json_path: str | None, name: str, alias: str) -> None:
    """Show every move of NAME's ALIAS: who, when, why; the newest first."""
    entries = Registry.open(url).history(name, alias)
    result = {"name": name, "alias": alias, "entries": [output.alias_json(entry) for entry in entries]}
    output.emit(result, json_path, lambda: output.alias_table(entries, f"history of {name}@{alias}"))


@command.command()
@registry_options
def verify(url: str, json_path: str | None) -> None:
    """Read everything and name what is damaged, missing or orphaned. Exit code 1 if anything in use is not whole."""
    registry = Registry.open(url)
    with output.progress(f"reading {registry.url}"):
        report = registry.verify()
    output.emit(output.verify_json(report), json_path, lambda: output.verify_table(report))
    if not report.clean:
        raise LoradeckError(
            f"{len(report.damaged)} damaged and {len(report.missing)} missing objects in {registry.url}; restore them "
            "from a copy, or push the same files again",
            reason="VERIFY_FAILED",
        )


def _add_later(name: str, text: str) -> None:
    @command.command(name, help=f"{text} (not implemented yet)", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def refuse(arguments: tuple[str, ...]) -> None:
        raise UnimplementedError(f"`loradeck registry {name}` is not implemented yet")


for _command in (import_, export, diff):
    command.add_command(_command)
for _name, _text in LATER.items():
    _add_later(_name, _text)

"""`loradeck registry`: keep, show, move and verify revisions."""

import os
from pathlib import Path
from typing import Any

import click

from loradeck_cli import output
from loradeck_cli.registry import tables
from loradeck_cli.registry.care import attach, gc, note, protect, sign, tag
from loradeck_cli.registry.find import list_, show
from loradeck_cli.registry.options import checked_task, registry_options
from loradeck_cli.registry.transfer import diff, export, import_
from loradeck_registry.errors import InvalidError, LoradeckError
from loradeck_registry.registry import Registry


@click.group()
def command() -> None:
    """Keep, show, move and verify revisions in a folder or an object store."""


@command.command()
@registry_options
def init(url: str, json_path: str | None) -> None:
    """Make a registry in an absent or empty folder, or in a bucket (s3://…, gs://…, az://…)."""
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
@click.option("--who", "author", help="Who adds it.")
@click.option("--licence", help="SPDX expression.")
@registry_options
def add_base(url: str, json_path: str | None, name: str, source: str, reserve_tokens: int, **settings: Any) -> None:
    """Store the base SOURCE under NAME: dir:FOLDER, hub:ORG/NAME, pocket:base, or a name in the registry."""
    from loradeck_registry.bases.resolve import add_base as add

    with output.transfer(f"storing {source}") as told:
        revision = add(Registry.open(url), name, source, reserve_tokens=reserve_tokens, progress=told, **settings)
    output.emit(output.revision_json(revision), json_path, lambda: tables.pushed(revision))


@command.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="REF", help="Base it belongs to: a name, hub:ORG/NAME, dir:FOLDER.")
@click.option(
    "--task",
    "task_path",
    type=click.Path(path_type=Path),
    help="The task, as a JSON file [default: for a pulled folder whose files are unchanged, that of its revision].",
)
@click.option("--alias", help="Alias to point at the new revision.")
@click.option("--who", "author", help="Who publishes it.")
@click.option("--why", "reason", default="", help="Why, for the record.")
@click.option("--licence", help="SPDX expression.")
@click.option("--sign-key", type=click.Path(path_type=Path), help="Sign it with this EC private key, a PEM file.")
@registry_options
def push(
    url: str,
    json_path: str | None,
    name: str,
    folder: Path,
    base: str,
    task_path: Path | None,
    sign_key: Path | None,
    alias: str | None,
    **settings: Any,
) -> None:
    """Publish FOLDER as the next revision of NAME: an adapter (adapter_config.json) or a full checkpoint.

    With --sign-key it is signed before the alias moves. LORADECK_SIGN_PASSWORD unlocks the key.
    """
    from loradeck_registry.bases.resolve import resolve_base
    from loradeck_registry.publish import is_unchanged, pulled_manifest, push_folder, read_json_file
    from loradeck_registry.signing import check_key

    registry = Registry.open(url)
    password = os.environ.get("LORADECK_SIGN_PASSWORD")
    if sign_key is not None:
        check_key(sign_key, password)
    task = None if task_path is None else checked_task(read_json_file(task_path, "task"))
    pulled = pulled_manifest(folder) if task is None else None
    task_lost = False
    if pulled is not None:
        if is_unchanged(folder, pulled):
            task, settings["probe"] = pulled.task, pulled.probe
        else:
            task_lost = pulled.task is not None
    with output.transfer(f"pushing {folder}") as told:
        resolved = resolve_base(base, registry)
        first = None if sign_key else alias
        revision = push_folder(registry, name, folder, resolved, task=task, alias=first, progress=told, **settings)
        if sign_key is not None:
            registry.sign(revision, sign_key, password=password)
            if alias is not None:
                why = settings["reason"] or "published"
                registry.move_alias(name, alias, str(revision.number), who=settings["author"] or "", why=why)
    if task_lost:
        click.echo(
            f"{revision} has no task, as the files of {folder} are not those that were pulled: push with --task to "
            "give it one",
            err=True,
        )
    output.emit(output.revision_json(revision), json_path, lambda: tables.pushed(revision))


@command.command()
@click.argument("reference")
@click.argument("destination", type=click.Path(path_type=Path))
@registry_options
def pull(url: str, json_path: str | None, reference: str, destination: Path) -> None:
    """Copy a revision's files, verified, into the absent or empty folder DESTINATION."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    with output.transfer(f"pulling {revision}", revision.manifest.size) as told:
        registry.pull(revision, destination, progress=told)
    result = output.revision_json(revision) | {"destination": str(destination)}
    output.emit(result, json_path, lambda: output.line(f"{revision} is in {destination}"))


@command.command()
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("targets", nargs=-1)
@click.option("--expect", type=click.IntRange(0), help="Revision it must point to now; 0: it must not exist yet.")
@click.option("--who", default="", help="Who moves it (default: user@host).")
@click.option("--why", default="", help="Why, for the history.")
@click.option(
    "--gate",
    "gate_path",
    type=click.Path(path_type=Path),
    help="Evaluation of the target, a JSON file: attached to it, and held to the alias's rules and its own `rules`.",
)
@registry_options
def alias(
    url: str,
    json_path: str | None,
    name: str,
    alias: str | None,
    targets: tuple[str, ...],
    expect: int | None,
    who: str,
    why: str,
    gate_path: Path | None,
) -> None:
    """Point NAME's ALIAS at a target (12, another alias, latest, sha256:…); without one, show aliases.

    Several targets with weights, as in `7=90 8=10`, make a weighted alias.
    """
    registry = Registry.open(url)
    if not targets:
        if expect is not None or who or why or gate_path:
            raise InvalidError("give the TARGET that the alias is to point to", field="target")
        registry.resolve(name if alias is None else f"{name}@{alias}")
        found = [entry for entry in registry.aliases(name).values() if alias in (None, entry.alias)]
        rows = [output.alias_json(entry) for entry in found]
        output.emit({"name": name, "aliases": rows}, json_path, lambda: tables.alias_table(found, f"aliases of {name}"))
        return
    assert alias is not None
    target = _weights(targets)
    rules = [] if gate_path is None else _attach_gate(registry, name, alias, target, gate_path, who)
    entry = registry.move_alias(name, alias, target, expect=expect, who=who, why=why, rules=rules)
    output.emit(output.alias_json(entry), json_path, lambda: tables.moved(entry))


@command.command()
@click.argument("name")
@click.argument("alias")
@click.option("--who", default="", help="Who moves it (default: user@host).")
@click.option("--why", default="", help="Why, for the history.")
@registry_options
def rollback(url: str, json_path: str | None, name: str, alias: str, who: str, why: str) -> None:
    """Point NAME's ALIAS back where it pointed before; again, further back."""
    entry = Registry.open(url).rollback(name, alias, who=who, why=why)
    output.emit(output.alias_json(entry), json_path, lambda: tables.moved(entry))


@command.command()
@click.argument("name")
@click.argument("alias")
@registry_options
def history(url: str, json_path: str | None, name: str, alias: str) -> None:
    """Show every move of NAME's ALIAS: who, when, why; the newest first."""
    entries = Registry.open(url).history(name, alias)
    result = {"name": name, "alias": alias, "entries": [output.alias_json(entry) for entry in entries]}
    output.emit(result, json_path, lambda: tables.alias_table(entries, f"history of {name}@{alias}"))


@command.command()
@registry_options
def verify(url: str, json_path: str | None) -> None:
    """Read everything and name what is damaged, missing or orphaned. Exit code 1 if anything in use is not whole."""
    registry = Registry.open(url)
    with output.progress(f"reading {registry.url}"):
        report = registry.verify()
    output.emit(output.verify_json(report), json_path, lambda: tables.verify_table(report))
    if not report.clean:
        raise LoradeckError(
            f"{len(report.damaged)} damaged and {len(report.missing)} missing objects in {registry.url}; restore them "
            "from a copy, or delete damaged blobs and push the same files again",
            reason="VERIFY_FAILED",
        )


def _weights(targets: tuple[str, ...]) -> str | dict[str, float]:
    if len(targets) == 1 and "=" not in targets[0]:
        return targets[0]
    found: dict[str, float] = {}
    for text in targets:
        target, _, weight = text.partition("=")
        try:
            found[target] = found.get(target, 0) + float(weight)
        except ValueError:
            raise InvalidError(
                f"bad target {text!r}: several targets need weights, as in 7=90 8=10", field="target"
            ) from None
    return found


def _attach_gate(
    registry: Registry, name: str, alias: str, target: str | dict[str, float], path: Path, who: str
) -> list[str]:
    """Attach the evaluation to the target; returns the rules that the file itself states."""
    from loradeck_registry.aliases.gates import Rule
    from loradeck_registry.attachments import evaluation
    from loradeck_registry.publish import read_json_file

    if not isinstance(target, str):
        raise InvalidError("--gate is for one target: attach evaluations to each with `registry attach`", field="gate")
    report = read_json_file(path, "evaluation")
    stated = report.pop("rules", [])
    if not isinstance(stated, list):
        raise InvalidError(f"`rules` in {path} is not a list", field="gate")
    rules = [Rule.parse(str(text)).text for text in stated]
    if not rules and not registry.rules(name, alias):
        raise InvalidError(
            f"{name}@{alias} has no rules and {path} states none: set them with `registry protect`", field="gate"
        )
    revision = registry.resolve(target if "@" in target else f"{name}@{target}")
    registry.attach(revision, "evaluation", evaluation(report, revision.digest), who=who)
    return rules


for _command in (import_, export, diff, list_, show, gc, sign, tag, note, attach, protect):
    command.add_command(_command)

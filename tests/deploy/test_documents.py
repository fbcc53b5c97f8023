"""The pages for operators name only what exists: files, links, settings, reasons, metrics."""

import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

from loradeck_serve.config import ServerConfig
from loradeck_serve.engine.settings import EngineSettings
from tests.deploy.tools import ROOT, accepts

PAGES = [ROOT / path for path in ("docs/operations.md", "docs/security.md", "deploy/README.md", "SECURITY.md")]
FOLDERS = ("tests/", "deploy/", "docs/", "serve/", "registry/", "cli/")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def code(page: Path) -> list[str]:
    """What stands between single backticks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


@every_page
def test_files_and_links_exist(page: Path) -> None:
    named = [text for text in code(page) if text.startswith(FOLDERS) and " " not in text]
    linked = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in linked if link and "://" not in link and not (page.parent / link).exists()]
    assert not missing


def settings(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all settings."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings(field.annotation, f"{prefix}{name}.")
    return found


@every_page
def test_settings_exist(page: Path) -> None:
    known = settings(ServerConfig) | {f"engine.{name}" for name in EngineSettings.model_fields}
    # Passed through to vLLM as it is.
    known.add("engine.gpu_memory_utilization")
    named = {text for text in code(page) if re.fullmatch(r"(limits|fairness|engine)\.[a-z_]+", text)}
    assert named <= known


@every_page
def test_reasons_and_log_messages_are_those_of_the_source(page: Path) -> None:
    source = "\n".join(
        path.read_text() for folder in ("serve", "registry", "cli") for path in (ROOT / folder).rglob("*.py")
    )
    reasons = {text for text in code(page) if re.fullmatch(r"[A-Z]{3,}(_[A-Z]+)+", text)}
    assert [reason for reason in reasons if reason not in source] == []
    logged = re.findall(r"^\| `([a-z][^|]*)` \|", page.read_text(), re.MULTILINE)
    messages = [part.rstrip(" …") for row in logged for part in row.split("`, `")]
    assert [message for message in messages if message not in source and not (ROOT / "deploy" / message).exists()] == []


def commands(page: Path) -> list[str]:
    """Calls of the command line: after a prompt, inside a container, and in the text."""
    shown = re.findall(r"^\$ (?:.* (?:exec|run --rm) server |.* -- )?(loradeck .*)$", page.read_text(), re.MULTILINE)
    return [*shown, *(text for text in code(page) if re.match(r"loradeck [a-z]+( |$)", text))]


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 15


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_command_exists(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_REGISTRY", "build/registry")
    accepts(shlex.split(line, comments=True)[1:])

"""The rules between packages: who may import whom, and what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "loradeck_registry": "registry",
    "loradeck_tasks": "registry",
    "loradeck_train": "train",
    "loradeck_serve": "serve",
    "loradeck_client": "serve",
    "loradeck_bench": "bench",
    "loradeck_cli": "cli",
    "loradeck_pocket": "pocket",
}
ALLOWED = {
    "loradeck_pocket": set(),
    "loradeck_registry": {"loradeck", "loradeck_pocket"},
    "loradeck_tasks": {"loradeck", "loradeck_registry"},
    "loradeck_train": {"loradeck", "loradeck_registry", "loradeck_tasks", "loradeck_pocket"},
    "loradeck_serve": {"loradeck", "loradeck_registry", "loradeck_tasks", "loradeck_pocket"},
    "loradeck_client": {"loradeck", "loradeck_registry", "loradeck_tasks"},
    "loradeck_bench": {"loradeck", "loradeck_registry", "loradeck_tasks", "loradeck_client", "loradeck_pocket"},
    "loradeck_cli": {"loradeck", *FOLDERS},
}
HEAVY = ("torch", "vllm", "transformers", "peft", "datasets", "sklearn", "matplotlib")


def imported_packages(file: Path) -> set[str]:
    """Top-level names of all imports in a file, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_package_imports_only_what_the_layers_allow(package: str) -> None:
    files = list((ROOT / FOLDERS[package] / package).rglob("*.py"))
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported_packages(file)
        if (name in FOLDERS or name == "loradeck") and name != package and name not in ALLOWED[package]
    }
    assert not wrong


@pytest.mark.parametrize(
    "module",
    [
        "loradeck_registry.registry",
        "loradeck_tasks.rendering",
        "loradeck_client",
        "loradeck_cli.main",
        "loradeck_pocket",
    ],
)
def test_light_module_loads_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("group", ["train", "registry", "serve", "query", "adapters", "eval", "bench", "study", "demo"])
def test_help_of_every_group_loads_no_heavy_package(group: str) -> None:
    code = (
        "import sys, loradeck_cli.main as m\n"
        f"sys.argv = ['loradeck', {group!r}, '--help']\n"
        "try:\n    m.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip().splitlines()[-1] == "heavy: []"

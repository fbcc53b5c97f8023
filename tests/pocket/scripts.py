"""Paths of the pocket package's data and base, and its build scripts as importable modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "pocket" / "build"
DATA = ROOT / "pocket" / "loradeck_pocket" / "data"
BASE = ROOT / "pocket" / "loradeck_pocket" / "base"


def load_script(task: str, name: str) -> ModuleType:
    """Import one script of pocket/build/<task>; names repeat across tasks, so each is loaded under its own."""
    spec = importlib.util.spec_from_file_location(f"pocket_{task}_{name}", BUILD / task / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # Scripts import their neighbours by plain name; forget those again, as other tasks have the same names.
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BUILD / task))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
        for neighbour in set(sys.modules) - before:
            origin = getattr(sys.modules[neighbour], "__file__", None) or ""
            if origin.startswith(str(BUILD)):
                del sys.modules[neighbour]
    return module

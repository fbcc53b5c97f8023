"""How fast a large registry answers: `python -m loradeck_registry.benchmark [--names N] [--revisions N] [--json PATH]`.

Fills a registry of its own in a temporary folder with records and manifests as a push writes them (the files behind
them are not needed for what is measured), then resolves, lists and watches it.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loradeck_registry import layout
from loradeck_registry.log import encode
from loradeck_registry.manifest import BaseIdentity, File, Lora, Manifest
from loradeck_registry.query import Filter, find
from loradeck_registry.registry import Registry

_BASE = BaseIdentity(
    reference="hub:org/base", digest=f"sha256:{'a' * 64}", compatibility=f"sha256:{'b' * 64}", vocabulary=100, rows=128
)


def measure(folder: Path, names: int, revisions: int, lookups: int) -> dict[str, Any]:
    """Seconds and milliseconds of each operation on a registry of `names` times `revisions` made in `folder`."""
    begin = time.perf_counter()
    url = folder / "registry"
    _fill(Registry.init(url, cache=folder / "cache"), names, revisions)
    result: dict[str, Any] = {"names": names, "revisions": revisions, "fill_seconds": time.perf_counter() - begin}
    registry = Registry.open(url, cache=folder / "cache")
    generator = random.Random(0)
    asked = [_name(generator.randrange(names)) for _ in range(lookups)]
    result["resolve_cold_ms"] = _quantiles(registry.resolve, asked)
    result["resolve_warm_ms"] = _quantiles(registry.resolve, asked)
    result["resolve_alias_warm_ms"] = _quantiles(registry.resolve, [f"{name}@prod" for name in asked])
    result["names_seconds"] = _seconds(registry.names)
    fresh = Registry.open(url, cache=folder / "cache")
    result["list_page_seconds"] = _seconds(lambda: find(fresh, limit=100))
    begin, used = time.perf_counter(), time.process_time()
    find(fresh, limit=names)
    result["list_all_seconds"] = time.perf_counter() - begin
    result["list_all_cpu_seconds"] = time.process_time() - used
    result["list_filtered_seconds"] = _seconds(lambda: find(fresh, Filter(task="generate"), limit=100))
    result["list_none_fits_seconds"] = _seconds(lambda: find(fresh, Filter(author="nobody*"), limit=100))
    now = datetime.now(UTC)
    result["watch_ms"] = _quantiles(lambda _: registry.changes(now), asked[:100])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m loradeck_registry.benchmark", description=__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--revisions", type=int, default=5)
    parser.add_argument("--lookups", type=int, default=2_000)
    parser.add_argument("--json", metavar="PATH", help="write the result as JSON to PATH, or - for standard output")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="loradeck-benchmark-") as folder:
        result = measure(Path(folder), chosen.names, chosen.revisions, chosen.lookups)
    text = json.dumps(result, indent=2) + "\n"
    if chosen.json == "-":
        sys.stdout.write(text)
        return
    sys.stdout.write("".join(f"{line}\n" for line in lines(result)))
    if chosen.json is not None:
        Path(chosen.json).write_text(text)


def lines(result: Mapping[str, Any]) -> list[str]:
    """A result for people: a line per figure."""
    found = []
    for key, value in result.items():
        shown = value if not isinstance(value, dict) else ", ".join(f"{q} {v:.3f}" for q, v in value.items())
        found.append(f"{key:24} {shown if not isinstance(shown, float) else f'{shown:.3f}'}")
    return found


def _fill(registry: Registry, names: int, revisions: int) -> None:
    root = Path(registry.url)
    when = datetime.now(UTC)
    for number in range(names):
        name = _name(number)
        digest = ""
        for revision in range(1, revisions + 1):
            manifest = Manifest(
                kind="adapter",
                base=_BASE,
                lora=Lora(rank=16, alpha=16, target_modules=("q_proj", "v_proj"), dtype="bfloat16"),
                files=(File(path="adapter_model.safetensors", sha256=f"{number * revisions + revision:064x}", size=1),),
                task={"kind": "generate" if number % 2 else "classification"},
                create_time=when,
            )
            digest = manifest.digest()
            record = {
                "format": 1, "digest": digest, "kind": "adapter", "author": None, "reason": "",
                "create_time": when.isoformat(),
            }  # fmt: skip
            _write(root / layout.manifest(digest), manifest.canonical_json())
            _write(root / layout.revision(name, revision), encode(record))
        target = {"revision": revisions, "digest": digest, "weight": 1.0}
        entry = {"format": 1, "targets": [target], "who": "benchmark", "when": when.isoformat(), "why": ""}
        _write(root / layout.numbered(layout.alias_log(name, "prod"), 1), encode(entry))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _name(number: int) -> str:
    return f"adapter-{number:06d}"


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _quantiles(action: Callable[[str], object], asked: Sequence[str]) -> dict[str, float]:
    """Milliseconds of single calls."""
    times = sorted(_seconds(lambda text=text: action(text)) * 1000 for text in asked)  # type: ignore[misc]
    return {"p50": times[len(times) // 2], "p99": times[min(int(len(times) * 0.99), len(times) - 1)], "max": times[-1]}


if __name__ == "__main__":
    main()

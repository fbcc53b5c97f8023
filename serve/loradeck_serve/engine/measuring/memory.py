"""Memory of the engine's processes while adapters come and go: is it flat, once the first ones have been?

Run as `python -m loradeck_serve.engine.measuring.memory --base FOLDER`. One random adapter after the other is loaded,
asked, and unloaded: every one of them goes through a slot and through host memory.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loradeck_registry.errors import LoradeckError
from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.measuring.synthetic import write_random_adapter
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine

DISTINCT = 8
"""Different files; every load has a digest of its own, which is what makes it another adapter for the engine."""


class Turnover:
    """Loads adapters on one engine and keeps account of its memory."""

    def __init__(self, engine: VllmEngine, adapters: Sequence[EngineAdapter]) -> None:
        self._engine = engine
        self._adapters = adapters
        self._count = 0

    @property
    def adapter_mib(self) -> float:
        """Size of one adapter's file."""
        return (self._adapters[0].folder / "adapter_model.safetensors").stat().st_size / 2**20

    def resident_mib(self) -> float:
        """Resident memory of all processes of the engine."""
        return float(sum(process.memory_info().rss for process in self._engine.processes) / 2**20)

    async def load(self) -> EngineAdapter:
        """Load one more, and have it answer."""
        self._count += 1
        adapter = replace(self._adapters[self._count % len(self._adapters)], digest=f"turnover-{self._count}")
        await self._engine.load(adapter)
        request = self._engine.generate(adapter.digest, [1, 2, 3], GenerateSettings(max_tokens=2), adapter.digest)
        async for _ in request:
            pass
        return adapter

    async def come_and_go(self, count: int, together: int) -> None:
        """Load `count` adapters and unload them again, `together` at a time."""
        for start in range(0, count, together):
            loaded = [await self.load() for _ in range(min(together, count - start))]
            for adapter in loaded:
                await self._engine.unload(adapter.digest)


async def measure(settings: EngineSettings, *, rank: int, count: int, warm_up: int, every: int) -> dict[str, Any]:
    """Start an engine, and report its memory after `warm_up` adapters and after every `every` of `count` more."""
    with tempfile.TemporaryDirectory(prefix="loradeck-memory-") as folder:
        adapters = [
            write_random_adapter(settings.model, Path(folder) / str(seed), rank=rank, seed=seed)
            for seed in range(DISTINCT)
        ]
        engine = await VllmEngine.start(settings)
        try:
            turnover = Turnover(engine, adapters)
            before = turnover.resident_mib()
            await turnover.come_and_go(warm_up, settings.loaded_limit)
            resident = [turnover.resident_mib()]
            for _ in range(count // every):
                await turnover.come_and_go(every, settings.loaded_limit)
                resident.append(turnover.resident_mib())
            return {
                "adapters": count,
                "slots": settings.slots,
                "host_adapters": settings.loaded_limit,
                "rank": rank,
                "adapter_mib": round(turnover.adapter_mib, 3),
                "before_mib": round(before, 1),
                "resident_mib": [round(value, 1) for value in resident],
                "growth_mib": round(resident[-1] - resident[0], 1),
                "growth_in_adapters": round((resident[-1] - resident[0]) / turnover.adapter_mib, 2),
            }
        finally:
            await engine.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints the result as JSON and writes it to --json."""
    parser = argparse.ArgumentParser(prog="python -m loradeck_serve.engine.measuring.memory", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    for name, default in {"rank": 64, "count": 200, "warm_up": 40, "every": 20, "slots": 4, "host_adapters": 8}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    given = parser.parse_args(arguments)
    settings = EngineSettings(
        model=given.base,
        slots=given.slots,
        host_adapters=given.host_adapters,
        max_rank=given.rank,
        max_model_len=64,
        kv_cache_gib=0.1,
    )
    try:
        result = asyncio.run(
            measure(settings, rank=given.rank, count=given.count, warm_up=given.warm_up, every=given.every)
        )
    except LoradeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a fresh engine runs once before it is ready, so that no user waits for a compilation."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from loradeck_serve.engine.base import Engine, EngineAdapter, GenerateSettings
from loradeck_serve.engine.plugin.options import PluginOptions

DIGEST = "warm-up"
"""Name of the empty adapter that the warm-up loads; no revision's digest looks like it."""


async def warm_up(engine: Engine, options: PluginOptions) -> None:
    """Generate, sample and score, without an adapter and with one, alone and together; then unload it."""
    await _run(engine, [None])
    if not engine.info.slots:
        return
    with TemporaryDirectory(prefix="loradeck-warm-up-") as folder:
        await engine.load(write_empty_adapter(Path(folder)))
        await _run(engine, [DIGEST, None])
        await engine.unload(DIGEST)


def write_empty_adapter(folder: Path) -> EngineAdapter:
    """An adapter that changes nothing: rank 0 and no added tokens."""
    config = {"peft_type": "LORA", "r": 0, "lora_alpha": 0, "target_modules": [], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return EngineAdapter(DIGEST, folder, 0)


async def _run(engine: Engine, adapters: list[str | None]) -> None:
    async def generate(number: int, adapter: str | None, temperature: float) -> None:
        settings = GenerateSettings(max_tokens=3, temperature=temperature, top_p=0.9 if temperature else 1.0)
        async for _ in engine.generate(f"warm-up-{number}-{temperature}", [1, 2, 3], settings, adapter):
            pass

    async def score(number: int, adapter: str | None, count: int) -> None:
        await engine.score(f"warm-up-{number}-{count}", [1, 2, 3], [[token] for token in range(count)], adapter)

    jobs = []
    for number, adapter in enumerate(adapters):
        jobs += [generate(number, adapter, 0.0), generate(number, adapter, 1.0)]
        jobs += [score(number, adapter, count) for count in (1, 9)]
    await asyncio.gather(*jobs)

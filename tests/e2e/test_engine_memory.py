"""Unloading an adapter frees its memory, in the slots and in host memory."""

import pytest

from loradeck_serve.engine.measuring.memory import Turnover
from loradeck_serve.engine.measuring.synthetic import write_random_adapter
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from tests.support.tiny import make_tiny_base

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

RANK = 128
HELD = 40


async def test_memory_is_flat_while_adapters_come_and_go(tmp_path, monkeypatch) -> None:
    # What threads hold back grows with the cores of the machine, and is not what this is about.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    base = make_tiny_base(tmp_path / "base")
    adapters = [write_random_adapter(base, tmp_path / str(seed), rank=RANK, seed=seed) for seed in range(4)]
    settings = EngineSettings(
        model=base, slots=4, host_adapters=HELD, max_rank=RANK, max_model_len=64, kv_cache_gib=0.1, enforce_eager=True
    )
    engine = await VllmEngine.start(settings)
    try:
        turnover = Turnover(engine, adapters)
        await turnover.come_and_go(30, 8)
        before = turnover.resident_mib()
        await turnover.come_and_go(100, 8)
        after = turnover.resident_mib()
        # The control: the same adapters do show, once they are not unloaded.
        for _ in range(HELD):
            await turnover.load()
        held = turnover.resident_mib() - after
    finally:
        await engine.stop()
    # The engine keeps adapters in bfloat16, half the size of their files.
    assert held > 0.6 * HELD * turnover.adapter_mib / 2
    assert after - before < 0.1 * 100 * turnover.adapter_mib / 2

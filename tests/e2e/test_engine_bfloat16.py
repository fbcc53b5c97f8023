"""The precision that is served most, on the matrix unit where there is one: the engine against PEFT in bfloat16."""

import asyncio

import pytest

from loradeck_serve.engine.base import EngineAdapter
from loradeck_serve.engine.measuring.peft_answers import PeftBase, probe_of
from loradeck_serve.engine.probe import FACTOR, NOISE, measure_probe
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from tests.support.tiny import make_tiny_adapter, make_tiny_base

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

RANKS = {4: 0, 8: 3, 16: 0, 40: 64}
"""Rank and added tokens of each adapter; a rank over 32 takes more than one tile."""


async def test_adapters_of_many_ranks_answer_as_trained(tmp_path) -> None:
    base = make_tiny_base(tmp_path / "base")
    peft = PeftBase(base, "bfloat16")
    adapters = {
        rank: EngineAdapter(
            f"rank-{rank}",
            make_tiny_adapter(base, tmp_path / str(rank), rank=rank, seed=rank, added_tokens=added),
            rank,
            tuple(range(peft.vocabulary, peft.vocabulary + added)),
        )
        for rank, added in RANKS.items()
    }
    probes = {rank: probe_of(peft, adapter, 24, 20) for rank, adapter in adapters.items()}
    settings = EngineSettings(
        model=base,
        dtype="bfloat16",
        slots=3,
        host_adapters=4,
        max_rank=40,
        max_model_len=64,
        kv_cache_gib=0.1,
        vocabulary=peft.vocabulary,
        enforce_eager=True,
    )
    engine = await VllmEngine.start(settings)
    try:
        for adapter in adapters.values():
            await engine.load(adapter)
        # All at once, more adapters than slots: batches mix them.
        found = await asyncio.gather(
            *(
                measure_probe(engine, probes[n], f"rank-{n}", adapters[n].added_token_ids, name=f"own-{n}")
                for n in RANKS
            )
        )
        crossed = await asyncio.gather(
            *(measure_probe(engine, probes[4], f"rank-{n}", name=f"other-{n}") for n in RANKS if n != 4)
        )
    finally:
        await engine.stop()
    for parts in found:
        assert all(part.error < max(FACTOR * part.distance, NOISE["bfloat16"]) for part in parts), parts
    for parts in crossed:
        assert all(part.error > 3 * max(FACTOR * part.distance, NOISE["bfloat16"]) for part in parts), parts
    assert [len(parts) for parts in found] == [2 if added else 1 for added in RANKS.values()]

"""The real engine against PEFT in float32: base, adapters and new tokens, alone and mixed in one batch."""

import asyncio
import math
import shutil
from dataclasses import replace

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from loradeck_registry.errors import (
    ExhaustedError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.probe import run_probe
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from tests.e2e.stage import (
    ADAPTERS,
    COUNT,
    DAMAGE,
    PROMPTS,
    RESERVED,
    VOCABULARY,
    Stage,
    damage,
    make_adapters,
    make_probe,
)
from tests.serve.engine.reference import make_reference
from tests.support.tiny import make_tiny_adapter, make_tiny_base

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]

TOLERANCE = 1e-4


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["qwen2-tied-eager", "llama-untied-compiled"])
async def stage(request, tmp_path_factory):
    architecture, kind, mode = request.param.split("-")
    folder = tmp_path_factory.mktemp(architecture)
    base = make_tiny_base(folder / "base", architecture, tied=kind == "tied", vocabulary=VOCABULARY, reserved=RESERVED)
    adapters = make_adapters(base, folder)
    settings = EngineSettings(
        model=base,
        dtype="float32",
        max_model_len=256,
        slots=4,
        host_adapters=6,
        max_rank=16,
        kv_cache_gib=0.25,
        enforce_eager=mode == "eager",
        vocabulary=VOCABULARY,
        # So few blocks of the key-value cache that they are used again and again.
        engine={"block_size": 32, "num_gpu_blocks_override": 40},
    )
    engine = await VllmEngine.start(settings)
    try:
        for adapter in adapters.values():
            await engine.load(adapter)
        yield Stage(base, engine, adapters)
    finally:
        await engine.stop()


@pytest.mark.parametrize("name", [None, *ADAPTERS])
async def test_greedy_tokens_equal_peft(stage, name) -> None:
    for prompt in stage.prompts(name):
        assert await stage.generate(prompt, name) == stage.references[name].greedy(prompt, COUNT)


@pytest.mark.parametrize("name", [None, *ADAPTERS])
async def test_logprobs_equal_peft(stage, name) -> None:
    tokens = list(range(0, VOCABULARY + RESERVED, 4))
    for prompt in stage.prompts(name):
        wanted = stage.references[name].logprobs(prompt)[tokens]
        found = torch.tensor(await stage.logprobs(prompt, tokens, name))
        assert torch.equal(found.isinf(), wanted.isinf())
        assert torch.allclose(found[found.isfinite()], wanted[wanted.isfinite()], atol=TOLERANCE, rtol=0)


async def test_adapters_and_base_in_one_batch_answer_as_alone(stage) -> None:
    # Five adapters and the base: more than slots, so that slots change hands while others run.
    jobs = [(name, prompt) for _ in range(3) for name in (None, *ADAPTERS) for prompt in stage.prompts(name)]
    found = await asyncio.gather(*(stage.generate(prompt, name) for name, prompt in jobs))
    keys = {(name, tuple(prompt)) for name, prompt in jobs}
    wanted = {(name, prompt): stage.references[name].greedy(prompt, COUNT) for name, prompt in keys}
    assert len(set(wanted.values())) > len(ADAPTERS)
    assert [wanted[name, tuple(prompt)] for name, prompt in jobs] == found


async def test_base_logprobs_do_not_move_when_adapters_run_beside_it(stage) -> None:
    tokens = list(range(128))
    alone = [await stage.logprobs(prompt, tokens, None) for prompt in PROMPTS]

    async def noise(name):
        return await stage.generate([3, 4, 5], name, max_tokens=40)

    async def measure():
        return [await stage.logprobs(prompt, tokens, None) for prompt in PROMPTS]

    *_, mixed = await asyncio.gather(*(noise(name) for name in ADAPTERS), measure())
    assert torch.allclose(torch.tensor(mixed), torch.tensor(alone), atol=TOLERANCE, rtol=0)


async def test_a_request_cannot_produce_foreign_new_tokens(stage, tmp_path) -> None:
    # Output rows so large that they win wherever they count at all.
    folder = tmp_path / "loud"
    shutil.copytree(stage.adapters["nine"].folder, folder)
    rows = load_file(str(folder / "new_tokens.safetensors"))
    rows["output_rows"] = torch.randn(9, rows["output_rows"].shape[1]) * 100
    save_file(rows, str(folder / "new_tokens.safetensors"))
    loud = replace(stage.adapters["nine"], digest=f"sha256:{'f' * 64}", folder=folder)
    await stage.engine.load(loud)
    stage.adapters["loud"] = loud
    try:
        names = ["loud", None, "plain", "three", "loud", None]
        found = await asyncio.gather(
            *(stage.generate(prompt, name, temperature=1.5, seed=7) for name in names for prompt in PROMPTS)
        )
        produced: dict[str | None, set[int]] = {}
        for number, tokens in enumerate(found):
            produced.setdefault(names[number // len(PROMPTS)], set()).update(tokens)
        assert produced["loud"] & set(loud.added_token_ids)
        assert not any(token >= VOCABULARY for token in produced[None] | produced["plain"])
        assert not any(token >= VOCABULARY + 3 for token in produced["three"])
    finally:
        del stage.adapters["loud"]
        await stage.engine.unload(loud.digest)


async def test_longer_candidates_get_the_logprob_of_each_token(stage) -> None:
    candidates = [[10, 11, 12], [10, 11], [10, 13], [14], [15, 16, 17, 18]]
    for name in (None, "nine"):
        prompt = stage.prompts(name)[-1]
        scores = await stage.engine.score(f"trie-{name}", prompt, candidates, stage.digest(name))
        for candidate, values in zip(candidates, scores.logprobs, strict=True):
            for position, (token, value) in enumerate(zip(candidate, values, strict=True)):
                wanted = float(stage.references[name].logprobs([*prompt, *candidate[:position]])[token])
                assert value == pytest.approx(wanted, abs=TOLERANCE)


async def test_scores_of_tokens_that_cannot_come_are_minus_infinity(stage) -> None:
    first = VOCABULARY
    candidates = [[first], [10, first, 11], [10, 12]]
    scores = await stage.engine.score("foreign", [5, 6], candidates, None)
    assert scores.logprobs[0] == (float("-inf"),)
    assert scores.logprobs[1][1:] == (float("-inf"), float("-inf"))
    assert all(value > float("-inf") for value in scores.logprobs[2])


async def test_a_repeated_prompt_is_read_from_the_prefix_cache_of_its_own_adapter(stage) -> None:
    prompt = [20 + i for i in range(70)]
    for name in (None, "three"):
        assert await stage.generate(prompt, name) == stage.references[name].greedy(prompt, COUNT)
    scores = await stage.engine.score("cached", prompt, [[1]], stage.digest("three"))
    assert scores.cached_prompt_tokens == 64
    fresh = await stage.engine.score("not-cached", prompt, [[1]], stage.digest("plain"))
    assert fresh.cached_prompt_tokens == 0


async def test_generation_stops_at_given_tokens_only(stage) -> None:
    whole = await stage.generate(PROMPTS[0], None)
    stop = next(token for position, token in enumerate(whole) if position and token not in whole[:position])
    outputs = [
        output
        async for output in stage.engine.generate(
            "stop", PROMPTS[0], GenerateSettings(max_tokens=COUNT, stop_token_ids=(stop,)), None
        )
    ]
    tokens = tuple(token for output in outputs for token in output.token_ids)
    assert tokens == whole[: whole.index(stop)]
    assert [output.finish_reason for output in outputs][-1] == "stop"
    assert (await stage.generate(PROMPTS[0], None, stop_token_ids=(VOCABULARY - 1,)))[: len(tokens)] == tokens


async def test_damaged_adapters_are_refused_and_disturb_nobody(stage, tmp_path) -> None:
    before = [await stage.generate(PROMPTS[1], name) for name in (None, *ADAPTERS)]
    loaded = (await stage.engine.stats()).loaded
    for number, kind in enumerate(["control", *DAMAGE]):
        folder = tmp_path / kind.replace(" ", "-")
        shutil.copytree(stage.adapters["nine"].folder, folder)
        adapter = replace(stage.adapters["nine"], digest=f"sha256:{number + 100:064x}", folder=folder)
        if kind == "control":
            await stage.engine.load(adapter)
            await stage.engine.unload(adapter.digest)
            continue
        damage(folder, kind)
        with pytest.raises(PreconditionError) as caught:
            await stage.engine.load(adapter)
        assert caught.value.reason in {"ENGINE_REFUSED", "ADAPTER_CONFIG"}, kind
        assert "\n" not in caught.value.message
        with pytest.raises(NotFoundError):
            await anext(stage.engine.generate("refused", [1], GenerateSettings(max_tokens=1), adapter.digest))
    assert (await stage.engine.stats()).loaded == loaded
    assert [await stage.generate(PROMPTS[1], name) for name in (None, *ADAPTERS)] == before


async def test_an_adapter_that_overflows_breaks_nobody_else(stage, tmp_path) -> None:
    folder = tmp_path / "overflow"
    shutil.copytree(stage.adapters["plain"].folder, folder)
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    for name in tensors:
        tensors[name] = tensors[name] * 1e18
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    broken = replace(stage.adapters["plain"], digest=f"sha256:{'e' * 64}", folder=folder)
    names = (None, *ADAPTERS)
    before = [await stage.generate(PROMPTS[1], name, max_tokens=40) for name in names]
    await stage.engine.load(broken)
    stage.adapters["broken"] = broken
    try:
        scores = await stage.engine.score("overflow", [1, 2, 3], [[5], [6]], broken.digest)
        assert not any(math.isfinite(value) for (value,) in scores.logprobs)
        # Through every block, greedily and sampled, alone and beside others.
        mixed = await asyncio.gather(
            *(stage.generate([n, 2, 3], "broken", max_tokens=60, temperature=n % 2) for n in range(30)),
            *(stage.generate(PROMPTS[1], name, max_tokens=40) for name in names),
        )
        assert mixed[30:] == before
        for _ in range(3):
            after = await asyncio.gather(*(stage.generate(PROMPTS[1], name, max_tokens=40) for name in names))
            assert after == before
        with pytest.raises(PreconditionError) as caught:
            await run_probe(stage.engine, make_probe(stage, "plain"), broken.digest)
        assert caught.value.reason == "PROBE_FAILED"
    finally:
        del stage.adapters["broken"]
        await stage.engine.unload(broken.digest)
    assert [await stage.generate(PROMPTS[1], name, max_tokens=40) for name in names] == before


@pytest.mark.parametrize("name", ["plain", "three", "most"])
async def test_probe_passes_for_the_trained_adapter_and_fails_for_another(stage, name) -> None:
    probe = make_probe(stage, name)
    result = await run_probe(stage.engine, probe, stage.adapters[name].digest)
    assert result.verdict == "equal"
    assert result.error < TOLERANCE
    assert result.distance == pytest.approx(probe.distance, rel=1e-3)
    other = "nine"
    with pytest.raises(PreconditionError) as caught:
        await run_probe(stage.engine, probe, stage.adapters[other].digest)
    assert caught.value.reason == "PROBE_FAILED"


async def test_probe_tells_an_adapter_without_effect_from_a_good_one(stage, tmp_path) -> None:
    silent = EngineAdapter(
        f"sha256:{'d' * 64}", make_tiny_adapter(stage.base, tmp_path / "silent", rank=8, seed=9, scale=0), 8
    )
    stage.references["silent"] = make_reference(stage.base, VOCABULARY, silent)
    probe = make_probe(stage, "silent")
    await stage.engine.load(silent)
    try:
        with pytest.raises(PreconditionError) as caught:
            await run_probe(stage.engine, probe, silent.digest)
        assert caught.value.reason == "INDISTINCT"
        assert (await run_probe(stage.engine, probe, silent.digest, allow_indistinct=True)).verdict == "indistinct"
        with pytest.raises(PreconditionError) as caught:
            await run_probe(stage.engine, probe, stage.adapters["plain"].digest, allow_indistinct=True)
        assert caught.value.reason == "PROBE_FAILED"
    finally:
        del stage.references["silent"]
        await stage.engine.unload(silent.digest)


async def test_unloaded_adapter_is_gone_and_can_come_back(stage) -> None:
    adapter = stage.adapters["three"]
    before = await stage.generate(PROMPTS[0], "three")
    await stage.engine.unload(adapter.digest)
    await stage.engine.unload(adapter.digest)
    with pytest.raises(NotFoundError) as caught:
        await stage.generate(PROMPTS[0], "three")
    assert caught.value.reason == "NOT_LOADED"
    await asyncio.gather(stage.engine.load(adapter), stage.engine.load(adapter))
    assert await stage.generate(PROMPTS[0], "three") == before


async def test_a_full_engine_refuses_and_evicts_nobody(stage, tmp_path) -> None:
    extra = [replace(stage.adapters["plain"], digest=f"sha256:{200 + number:064x}") for number in range(2)]
    await stage.engine.load(extra[0])
    try:
        with pytest.raises(ExhaustedError) as caught:
            await stage.engine.load(extra[1])
        assert caught.value.reason == "ENGINE_FULL"
        assert set((await stage.engine.stats()).loaded) >= {a.digest for a in stage.adapters.values()}
    finally:
        await stage.engine.unload(extra[0].digest)


async def test_leaving_a_stream_aborts_the_request(stage) -> None:
    async def running() -> int:
        await stage.generate([1], None, max_tokens=1)
        stats = await stage.engine.stats()
        return stats.running + stats.waiting

    stream = stage.engine.generate("left", [1, 2], GenerateSettings(max_tokens=240), "sha256:" + "0" * 64)
    await anext(stream)
    await stream.aclose()

    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in stage.engine.generate("cancelled", [1, 2], GenerateSettings(max_tokens=240), None):
            begun.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(begun.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        while await running():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [([], "INVALID"), ([1] * 256, "PROMPT_TOO_LONG"), ([VOCABULARY], "INVALID"), ([-1], "INVALID")],
)
async def test_bad_prompts_are_refused(stage, prompt, reason) -> None:
    with pytest.raises(InvalidError) as caught:
        await stage.generate(prompt, None)
    assert (caught.value.reason, caught.value.field) == (reason, "prompt")


async def test_a_dead_engine_says_so_and_leaves_no_process(stage) -> None:
    """Last on purpose: it ends the engine of this architecture."""
    children = stage.engine.processes
    assert len(children) >= 2

    async def long_request() -> None:
        await stage.generate([1, 2, 3], None, max_tokens=240)

    # Stopped first, so that the request cannot end before the engine does.
    children[0].suspend()
    request = asyncio.create_task(long_request())
    await asyncio.sleep(0.05)
    children[0].kill()
    assert "ended" in await asyncio.wait_for(stage.engine.wait_dead(), 60)
    with pytest.raises(UnavailableError):
        await request
    for call in (stage.generate([1], None), stage.engine.unload(stage.adapters["plain"].digest)):
        with pytest.raises(UnavailableError) as caught:
            await call
        assert caught.value.reason == "ENGINE_DEAD"
    await stage.engine.stop()
    assert not any(child.is_running() for child in children)

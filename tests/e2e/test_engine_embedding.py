"""LoRA on the whole embedding and head, in the real engine, against PEFT in float32, with and without new tokens."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from tests.serve.engine.reference import Reference, make_reference
from tests.support.tiny import HIDDEN, make_tiny_adapter, make_tiny_base

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]

VOCABULARY = 320
RESERVED = 64
RANK = 8
PROMPTS = ([5, 6, 7, 8], [40, 41, 42, 43, 44, 45, 46], [9, 9, 200, 300, 12])
COUNT = 8
TOLERANCE = 1e-4
ADAPTERS = {
    "input": (("embed_tokens",), 0),
    "output": (("lm_head",), 0),
    "both": (("embed_tokens", "lm_head"), 0),
    "both and 64 new": (("embed_tokens", "lm_head"), 64),
    "input and 4 new": (("embed_tokens",), 4),
    "9 new": ((), 9),
    "neither": ((), 0),
}
"""Matrices of the whole vocabulary that get a LoRA beside the linear layers, and new tokens, from the same row on."""


def make_adapter(base: Path, folder: Path, seed: int, wide: tuple[str, ...], added: int) -> EngineAdapter:
    """An adapter as PEFT writes it, LoRA on `wide` over all rows, those of new tokens included."""
    make_tiny_adapter(base, folder, rank=RANK, seed=seed, added_tokens=added)
    generator = torch.Generator().manual_seed(seed)
    rows = VOCABULARY + RESERVED

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.15).contiguous()

    file = folder / "adapter_model.safetensors"
    tensors = load_file(str(file))
    if "embed_tokens" in wide:
        tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = random(RANK, rows)
        tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = random(HIDDEN, RANK)
    if "lm_head" in wide:
        tensors["base_model.model.lm_head.lora_A.weight"] = random(RANK, HIDDEN)
        tensors["base_model.model.lm_head.lora_B.weight"] = random(rows, RANK)
    save_file(tensors, str(file), metadata={"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] += wide
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return EngineAdapter(f"sha256:{seed:064x}", folder, RANK, tuple(range(VOCABULARY, VOCABULARY + added)))


class Stage:
    """One engine and what each adapter should answer."""

    def __init__(self, base: Path, engine: VllmEngine, adapters: dict[str, EngineAdapter]) -> None:
        self.engine = engine
        self.adapters = adapters
        self.references: dict[str | None, Reference] = {
            None: make_reference(base, VOCABULARY),
            **{name: make_reference(base, VOCABULARY, adapter) for name, adapter in adapters.items()},
        }
        self._count = 0

    def prompts(self, name: str | None) -> list[list[int]]:
        own = self.adapters[name].added_token_ids if name else ()
        return [*PROMPTS, *([[own[0], 17, 18, own[-1]]] if own else [])]

    def digest(self, name: str | None) -> str | None:
        return None if name is None else self.adapters[name].digest

    async def generate(self, prompt: list[int], name: str | None) -> tuple[int, ...]:
        self._count += 1
        outputs = self.engine.generate(
            f"embedding-{self._count}", prompt, GenerateSettings(max_tokens=COUNT), self.digest(name)
        )
        return tuple([token async for output in outputs for token in output.token_ids])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["qwen2-tied-compiled", "llama-untied-eager"])
async def stage(request, tmp_path_factory) -> AsyncIterator[Stage]:
    architecture, kind, mode = request.param.split("-")
    folder = tmp_path_factory.mktemp(f"embedding-{architecture}")
    base = make_tiny_base(folder / "base", architecture, tied=kind == "tied", vocabulary=VOCABULARY, reserved=RESERVED)
    adapters = {
        name: make_adapter(base, folder / str(seed), seed, wide, added)
        for seed, (name, (wide, added)) in enumerate(ADAPTERS.items())
    }
    settings = EngineSettings(
        model=base,
        dtype="float32",
        max_model_len=64,
        slots=4,
        host_adapters=len(ADAPTERS),
        max_rank=16,
        embedding_lora=True,
        kv_cache_gib=0.1,
        enforce_eager=mode == "eager",
        vocabulary=VOCABULARY,
    )
    engine = await VllmEngine.start(settings)
    try:
        for adapter in adapters.values():
            await engine.load(adapter)
        yield Stage(base, engine, adapters)
    finally:
        await engine.stop()


@pytest.mark.parametrize("name", [None, *ADAPTERS])
async def test_logprobs_and_greedy_tokens_equal_peft(stage, name) -> None:
    tokens = list(range(0, VOCABULARY + RESERVED, 4))
    for number, prompt in enumerate(stage.prompts(name)):
        wanted = stage.references[name].logprobs(prompt)[tokens]
        scores = await stage.engine.score(f"{name}-{number}", prompt, [[t] for t in tokens], stage.digest(name))
        found = torch.tensor([value for (value,) in scores.logprobs])
        assert torch.equal(found.isinf(), wanted.isinf())
        assert torch.allclose(found[found.isfinite()], wanted[wanted.isfinite()], atol=TOLERANCE, rtol=0)
        assert await stage.generate(prompt, name) == stage.references[name].greedy(prompt, COUNT)


async def test_the_whole_embedding_matters_in_every_reference(stage) -> None:
    """A control: the LoRA on embedding and head moves what is compared above, each by far more than the tolerance."""
    prompt = list(PROMPTS[0])
    for name, (wide, _) in ADAPTERS.items():
        if wide:
            model = stage.references[name].model
            with_it = stage.references[name].logprobs(prompt)
            layers = [layer for key, layer in model.named_modules() if key.endswith(wide) and hasattr(layer, "scaling")]
            assert len(layers) == len(wide)
            for layer in layers:
                layer.scaling["default"], before = 0.0, layer.scaling["default"]
                moved = (stage.references[name].logprobs(prompt) - with_it)[:VOCABULARY].abs().max()
                layer.scaling["default"] = before
                assert moved > 1000 * TOLERANCE


async def test_adapters_that_add_other_tokens_at_the_same_rows_share_a_batch(stage) -> None:
    jobs = [(name, prompt) for _ in range(2) for name in (None, *ADAPTERS) for prompt in stage.prompts(name)]
    found = await asyncio.gather(*(stage.generate(prompt, name) for name, prompt in jobs))
    assert found == [stage.references[name].greedy(prompt, COUNT) for name, prompt in jobs]

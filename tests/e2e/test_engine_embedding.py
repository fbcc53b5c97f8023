"""LoRA on the whole embedding and head, in the real engine, against PEFT in float32, with and without new tokens."""

import asyncio
import dataclasses
import json
import math
from collections.abc import AsyncIterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from rich.console import Console

from loradeck_client import AsyncClient, Sampling
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_serve.app import Server
from loradeck_serve.config import ServerConfig
from loradeck_serve.engine import checks
from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from loradeck_serve.engine_start import engine_settings
from loradeck_serve.sources import Sources
from loradeck_tasks.rendering import render_prompt, stop_token_ids, tokenizer_for
from loradeck_tasks.task import Task
from loradeck_train.recipe.files import parse_recipe
from loradeck_train.run import run
from tests.serve.engine.reference import Reference, make_reference
from tests.support.tiny import make_tiny_adapter, make_tiny_base

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
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

TRAINED = {
    "lora": {"task": {"kind": "classification"}, "lora": {"embeddings": "lora"}},
    "both": {"task": {"kind": "classification"}, "lora": {"embeddings": "both", "rank_pattern": {"lm_head": 7}}},
    "no-tokens": {
        "task": {"kind": "generate", "template": "{text}"},
        "lora": {"embeddings": "lora"},
        "data": {"columns": {"text": "text", "answer": "label"}},
    },
}
"""What recipes say of adapters that train the whole embedding: new rows that stay, that are trained too, and none."""


def make_adapter(base: Path, folder: Path, seed: int, wide: tuple[str, ...], added: int) -> EngineAdapter:
    """An adapter as PEFT writes it, LoRA on `wide` over all rows, those of new tokens included."""
    make_tiny_adapter(base, folder, rank=RANK, seed=seed, added_tokens=added, whole=wide)
    return EngineAdapter(f"sha256:{seed:064x}", folder, RANK, tuple(range(VOCABULARY, VOCABULARY + added)))


class Stage:
    """One engine and what each adapter should answer."""

    def __init__(self, base: Path, engine: VllmEngine, adapters: dict[str, EngineAdapter]) -> None:
        self.base = base
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
        host_adapters=len(ADAPTERS) + len(TRAINED),
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


def train(stage: Stage, name: str, registry: Registry, rows: Path, folder: Path) -> None:
    """A few steps of real training, published under `name`."""
    tree: dict[str, Any] = {
        "base": f"dir:{stage.base}",
        "method": "lora",
        "data": {"source": str(rows)},
        "optimisation": {"learning_rate": 5e-3, "max_steps": 8, "batch_size": 6, "warmup_steps": 2},
        "precision": "fp32",
        "max_length": 48,
        "publish": {"name": name, "dtype": "float32", "probe_prompts": 3},
    }
    for key, value in TRAINED[name].items():
        tree[key] = tree.get(key, {}) | value
    tree["lora"] = {"rank": RANK, "alpha": 16} | tree["lora"]
    run(parse_recipe(tree), registry, folder / name, console=Console(quiet=True))


@pytest.fixture
def registry(stage, tmp_path) -> Registry:
    """A registry with what `TRAINED` says."""
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    rows = tmp_path / "rows.jsonl"
    pairs = (("The bank opened a branch.", "bank"), ("The school taught.", "school"), ("Solar power grows.", "power"))
    texts = [{"text": f"{text} {more}", "label": label} for text, label in pairs for more in ("It is.", "A test.")]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts))
    for name in TRAINED:
        train(stage, name, registry, rows, tmp_path)
    return registry


async def test_a_trained_adapter_answers_through_registry_and_server_as_peft_does(stage, registry, tmp_path) -> None:
    values = {
        "base": f"dir:{stage.base}", "registry": registry.url, "cache": tmp_path / "server-cache", "slots": 4,
        "inference": 0, "admin": 0, "metrics": 0, "engine": {"embedding_lora": True}, "host_adapters": 4,
    }  # fmt: skip
    sources = Sources.find(ServerConfig.model_validate(values))
    assert engine_settings(sources.config, sources.base).embedding_lora

    async def start() -> VllmEngine:
        return stage.engine

    server, ready = Server(sources, start), asyncio.Event()
    serving = asyncio.create_task(server.run(ready.set, signals=False))
    await asyncio.wait({serving, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        assert ready.is_set()
        async with AsyncClient(str(server.addresses.inference), timeout=60) as client:
            for name in TRAINED:
                await compare_with_peft(client, registry, name, stage.base)
    finally:
        server.stop()
        await serving


async def compare_with_peft(client: AsyncClient, registry: Registry, name: str, base: Path) -> None:
    """The server's answer with the adapter `name` and PEFT's, on the published files."""
    revision = registry.resolve(name)
    assert revision.manifest.lora is not None
    assert {"embed_tokens", "lm_head"} <= set(revision.manifest.lora.target_modules)
    task = Task.model_validate(revision.manifest.task)
    tokenizer = tokenizer_for(task, base)
    added = tuple(token.id for token in task.added_tokens)
    folder = registry.local(revision)
    reference = make_reference(base, VOCABULARY, EngineAdapter(revision.digest, folder, RANK, added))
    prompt = render_prompt(task, {"text": "The bank grows."}, tokenizer)
    if task.kind == "generate":
        async with client.generate(
            adapter=name, fields={"text": "The bank grows."}, sampling=Sampling(max_tokens=6)
        ) as stream:
            text = "".join([chunk.text async for chunk in stream])
        stops = stop_token_ids(task, tokenizer)
        assert text == tokenizer.decode([*takewhile(lambda t: t not in stops, reference.greedy(prompt, 6))])
        return
    reply = await client.classify("The bank grows.", adapter=name)
    tokens = {token.content: token.id for token in task.added_tokens}
    ids = [tokens[label.token] for label in task.labels if label.token is not None]
    wanted = reference.logprobs(prompt)[ids].log_softmax(-1)
    found = {score.label: math.log(score.probability) for score in reply.probabilities}
    for label, value in zip(task.labels, wanted.tolist(), strict=True):
        assert found[label.name] == pytest.approx(value, abs=TOLERANCE)
    assert reply.provenance.digest == revision.digest


async def test_an_engine_without_room_for_whole_embeddings_says_so(stage) -> None:
    """What the engine was started without is refused before vLLM sees it."""
    options = dataclasses.replace(stage.engine._options, embedding_lora=False)
    for name, (wide, _) in ADAPTERS.items():
        if not wide:
            checks.check_adapter(stage.adapters[name], options, 16)
            continue
        with pytest.raises(PreconditionError, match=r"engine\.embedding_lora") as caught:
            checks.check_adapter(stage.adapters[name], options, 16)
        assert caught.value.reason == "EMBEDDING_LORA_OFF"

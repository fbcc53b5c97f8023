"""One engine with adapters of several kinds, what PEFT says each should answer, and ways to damage an adapter."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.vllm_engine import VllmEngine
from loradeck_tasks.probe import Probe, ProbePrompt
from tests.serve.engine.reference import Reference, make_reference
from tests.support.tiny import make_tiny_adapter

VOCABULARY = 320
RESERVED = 64
PROMPTS = ([5, 6, 7, 8], [40, 41, 42, 43, 44, 45, 46], [100], [9, 9, 200, 300, 12])
COUNT = 8
ADAPTERS = {"plain": (8, 0), "three": (4, 3), "nine": (16, 9), "rows-only": (0, 5), "most": (8, 64)}


class Stage:
    """One engine, its adapters and what each of them should answer."""

    def __init__(self, base: Path, engine: VllmEngine, adapters: dict[str, EngineAdapter]) -> None:
        self.base = base
        self.engine = engine
        self.adapters = adapters
        self.references: dict[str | None, Reference] = {
            None: make_reference(base, VOCABULARY),
            **{name: make_reference(base, VOCABULARY, adapter) for name, adapter in adapters.items()},
        }
        self._count = 0

    def digest(self, name: str | None) -> str | None:
        return None if name is None else self.adapters[name].digest

    def prompts(self, name: str | None) -> list[list[int]]:
        """Plain prompts, and one that starts and ends with the adapter's own tokens."""
        own = self.adapters[name].added_token_ids if name else ()
        return [*PROMPTS, *([[own[0], 17, 18, own[-1]]] if own else [])]

    async def generate(self, prompt: list[int], name: str | None, **changes: Any) -> tuple[int, ...]:
        self._count += 1
        settings = replace(GenerateSettings(max_tokens=COUNT), **changes)
        outputs = self.engine.generate(f"generate-{self._count}", prompt, settings, self.digest(name))
        return tuple([token async for output in outputs for token in output.token_ids])

    async def logprobs(self, prompt: list[int], tokens: list[int], name: str | None) -> list[float]:
        self._count += 1
        candidates = [[token] for token in tokens]
        scores = await self.engine.score(f"score-{self._count}", prompt, candidates, self.digest(name))
        return [value for (value,) in scores.logprobs]


def make_adapters(base: Path, folder: Path) -> dict[str, EngineAdapter]:
    adapters = {}
    for seed, (name, (rank, added)) in enumerate(ADAPTERS.items()):
        target = folder / name
        make_tiny_adapter(base, target, rank=max(rank, 1), seed=seed, added_tokens=added)
        if rank == 0:
            config = json.loads((target / "adapter_config.json").read_text())
            config |= {"r": 0, "lora_alpha": 0, "target_modules": []}
            (target / "adapter_config.json").write_text(json.dumps(config))
            (target / "adapter_model.safetensors").unlink()
        if added:
            # Both sides on their own, also on a tied base: training may untie them, and serving must not tie them.
            rows = load_file(str(target / "new_tokens.safetensors"))
            rows["output_rows"] = rows["output_rows"] + 0.2 * torch.randn(
                rows["output_rows"].shape, generator=torch.Generator().manual_seed(seed)
            )
            save_file(rows, str(target / "new_tokens.safetensors"))
        ids = tuple(range(VOCABULARY, VOCABULARY + added))
        adapters[name] = EngineAdapter(f"sha256:{seed:064x}", target, rank, ids)
    return adapters


def damage(folder: Path, kind: str) -> None:
    """Break one thing in a valid adapter's folder."""
    file, rows_file = folder / "adapter_model.safetensors", folder / "new_tokens.safetensors"
    tensors = load_file(str(file))
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
        return
    if kind in ("rank in the configuration", "no configuration"):
        config = folder / "adapter_config.json"
        config.unlink() if kind == "no configuration" else config.write_text(config.read_text().replace("16", "8"))
        return
    if kind.startswith("rows"):
        rows = load_file(str(rows_file))
        if kind == "rows not finite":
            rows["output_rows"][0, 0] = float("nan")
        elif kind == "rows too narrow":
            rows["input_rows"] = rows["input_rows"][:, :-1].contiguous()
        else:
            rows["ids"] = rows["ids"] - 9
        save_file(rows, str(rows_file))
        return
    if kind == "not finite":
        tensors[name][0, 0] = float("inf")
    elif kind == "too narrow":
        tensors[name] = tensors[name][:, :-1].contiguous()
    elif kind == "unknown layer":
        tensors[name.replace("layers.1", "layers.7")] = tensors.pop(name)
    elif kind == "unknown module":
        tensors[name.replace("down_proj", "side_proj")] = tensors.pop(name)
    elif kind == "half a pair":
        del tensors[name]
    elif kind == "another prefix":
        tensors = {key.replace("base_model.model.model", "base_model.model.other"): t for key, t in tensors.items()}
    else:
        raise AssertionError(kind)
    save_file(tensors, str(file))


DAMAGE = [
    "truncated",
    "rank in the configuration",
    "no configuration",
    "rows not finite",
    "rows too narrow",
    "rows at the base's ids",
    "not finite",
    "too narrow",
    "unknown layer",
    "unknown module",
    "half a pair",
    "another prefix",
]


def make_probe(stage: Stage, name: str, prompts: Sequence[list[int]] = PROMPTS) -> Probe:
    """A probe as training makes it: log-probabilities where adapter and base differ most."""
    found = []
    for prompt in prompts:
        trained, base = (stage.references[key].logprobs(prompt)[:VOCABULARY] for key in (name, None))
        chosen = (trained - base).abs().topk(16).indices
        found.append(
            ProbePrompt(
                token_ids=tuple(prompt),
                candidates=tuple(chosen.tolist()),
                adapter_logprobs=tuple(trained[chosen].tolist()),
                base_logprobs=tuple(base[chosen].tolist()),
            )
        )
    gaps = [abs(a - b) for p in found for a, b in zip(p.adapter_logprobs, p.base_logprobs, strict=True)]
    return Probe(dtype="float32", prompts=tuple(found), distance=sum(gaps) / len(gaps))

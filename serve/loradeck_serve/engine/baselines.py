"""Engines measured in this process: what adapters cost, against the base, an engine without adapters, and stock vLLM.

Run as `python -m loradeck_serve.engine.baselines --base FOLDER --json PATH`. All engines are up at the same time and
take turns, round by round, so that what else the machine does falls on all of them alike.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.errors import LoradeckError
from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.measuring.synthetic import write_random_adapter
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine

GOLDEN_TOKENS = 8
"""Tokens of each reply that are compared with the same request answered alone."""

TIE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
"""Two tokens whose log-probabilities are this close may change places with the size of the batch: rounding decides."""


@dataclass(frozen=True)
class Load:
    """One round: `concurrency` requests at once, each of `prompt_tokens` and exactly `output_tokens`."""

    concurrency: int = 64
    prompt_tokens: int = 100
    output_tokens: int = 64
    adapters: int = 4
    rank: int = 8
    slots: int = 4
    max_rank: int = 16
    rounds: int = 9
    dtype: str = "auto"
    compiled: int = 1
    """0 runs the engine with adapters uncompiled; the one without adapters and the stock one start as vLLM has it."""


class Arm:
    """One of the things compared: an engine and the adapters that its requests name."""

    def __init__(self, name: str, engine: VllmEngine, targets: Sequence[str | None], every: int = 1) -> None:
        self.name = name
        self.engine = engine
        self.targets = targets
        self.every = every
        """Measured every so many rounds: a slow arm need not hold the others up."""
        self.tokens_per_s: list[float] = []
        self.cpu_ms_per_token: list[float] = []
        """Time on a core of the engine's processes: what a crowded machine moves least."""
        self._requests = 0

    async def measure(self, load: Load, seed: int) -> None:
        """One round with prompts of its own, so that the prefix cache has no part."""
        prompts = make_prompts(load.concurrency, load.prompt_tokens, self.engine.info.rows, seed)
        jobs = [(prompt, self.targets[number % len(self.targets)]) for number, prompt in enumerate(prompts)]
        start, cpu = time.perf_counter(), self._cpu_seconds()
        counts = await asyncio.gather(*(self.answer(prompt, target, load.output_tokens) for prompt, target in jobs))
        seconds, cpu = time.perf_counter() - start, self._cpu_seconds() - cpu
        tokens = sum(map(len, counts))
        self.tokens_per_s.append(tokens / seconds)
        self.cpu_ms_per_token.append(1000 * cpu / tokens)

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self.engine.processes]
        return float(sum(used.user + used.system for used in times))

    async def answer(self, prompt: list[int], target: str | None, count: int) -> list[int]:
        """Greedy tokens."""
        self._requests += 1
        settings = GenerateSettings(max_tokens=count)
        outputs = self.engine.generate(f"{self.name}-{self._requests}", prompt, settings, target)
        return [token async for output in outputs for token in output.token_ids]


def make_prompts(count: int, length: int, rows: int, seed: int) -> list[list[int]]:
    """`count` random prompts of `length` tokens from the lower half of the vocabulary."""
    chooser = random.Random(seed)
    return [[chooser.randrange(3, rows // 2) for _ in range(length)] for _ in range(count)]


async def count_wrong(arm: Arm, load: Load, replies: int) -> dict[str, Any]:
    """Replies in full mixed batches against the same requests answered one at a time.

    A reply is compared up to its first token that differs. That token counts as wrong, unless the request's own
    adapter, asked alone, gives it and the golden one the same probability within rounding (`near_ties`).
    """
    engine = arm.engine
    prompts = make_prompts(8, load.prompt_tokens, engine.info.rows, seed=10_000)
    targets = [*arm.targets, None]
    golden = {
        (number, target): await arm.answer(prompt, target, GOLDEN_TOKENS)
        for number, prompt in enumerate(prompts)
        for target in targets
    }
    distinct = sum(len({tuple(golden[number, target]) for target in targets}) == len(targets) for number in range(8))
    keys = [key for _ in range(-(-replies // len(golden))) for key in golden]
    random.Random(0).shuffle(keys)
    differing: list[tuple[tuple[int, str | None], int, int]] = []
    for start in range(0, len(keys), load.concurrency):
        batch = keys[start : start + load.concurrency]
        found = await asyncio.gather(*(arm.answer(prompts[n], target, GOLDEN_TOKENS) for n, target in batch))
        for key, tokens in zip(batch, found, strict=True):
            where = next((i for i, (a, b) in enumerate(zip(golden[key], tokens, strict=True)) if a != b), None)
            if where is not None:
                differing.append((key, where, tokens[where]))
    ties = 0
    for number, (key, where, token) in enumerate(differing):
        prompt = [*prompts[key[0]], *golden[key][:where]]
        scores = await engine.score(f"tie-{number}", prompt, [[golden[key][where]], [token]], key[1])
        (wanted,), (got,) = scores.logprobs
        ties += abs(wanted - got) <= TIE[engine.info.dtype]
    return {
        "replies": len(keys),
        "wrong_tokens": len(differing) - ties,
        "near_ties": ties,
        "prompts_where_all_targets_differ": distinct,
    }


async def compare(base: Path, load: Load, *, stock: bool, bare: bool, replies: int) -> dict[str, Any]:
    """Start the engines, alternate the rounds, and return medians and ratios."""
    common: dict[str, Any] = {
        "model": base,
        "dtype": load.dtype,
        "kv_cache_gib": 0.5,
        "max_batch_requests": load.concurrency,
    }
    common["max_model_len"] = load.prompt_tokens + load.output_tokens + 1
    ours = EngineSettings(**common, slots=load.slots, max_rank=load.max_rank, host_adapters=load.adapters + load.slots)
    if not load.compiled:
        ours = ours.model_copy(update={"enforce_eager": True})
    async with AsyncExitStack() as stack:

        async def start(settings: EngineSettings, operations: str = "loradeck") -> VllmEngine:
            engine = await VllmEngine.start(settings, operations=operations)
            stack.push_async_callback(engine.stop)
            return engine

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loradeck-baselines-")))
        adapters = [
            write_random_adapter(base, folder / str(seed), rank=load.rank, seed=seed) for seed in range(load.adapters)
        ]
        digests = [adapter.digest for adapter in adapters]
        engine = await start(ours)
        await _load(engine, adapters)
        arms = [Arm("adapters", engine, digests), Arm("base", engine, [None])]
        if bare:
            arms.append(Arm("no_lora_engine", await start(EngineSettings(**common, slots=0)), [None]))
        if stock:
            other = await start(ours, "stock")
            await _load(other, adapters)
            arms.append(Arm("stock", other, digests, every=3))
        for number in range(-1, load.rounds):
            # In turn forwards and backwards: nobody always comes after the same neighbour.
            for arm in arms if number % 2 else arms[::-1]:
                if number % arm.every == 0 or number < 0:
                    await arm.measure(load, seed=number)
                    print(f"round {number} {arm.name}: {arm.tokens_per_s[-1]:.0f} tokens/s", file=sys.stderr)
        for arm in arms:
            # The first round is a warm-up.
            del arm.tokens_per_s[0], arm.cpu_ms_per_token[0]
        result = summarize(arms) | {"load": asdict(load), "dtype": engine.info.dtype, "vllm": engine.info.version}
        if replies:
            result |= await count_wrong(arms[0], load, replies)
        return result


async def _load(engine: VllmEngine, adapters: Sequence[EngineAdapter]) -> None:
    for adapter in adapters:
        await engine.load(adapter)


def summarize(arms: Sequence[Arm]) -> dict[str, Any]:
    """Medians of all arms, and of the round-by-round ratios of the first arm to each other one."""
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    first = arms[0]
    for arm in arms:
        result[f"{arm.name}_tokens_per_s"] = round(statistics.median(arm.tokens_per_s), 1)
        result[f"{arm.name}_cpu_ms_per_token"] = round(statistics.median(arm.cpu_ms_per_token), 4)
        result[f"{arm.name}_compiled"] = arm.engine.info.compiled
        result[f"{arm.name}_rounds"] = [round(value, 1) for value in arm.tokens_per_s]
    for arm in arms[1:]:
        ratios = [mine / other for mine, other in zip(first.tokens_per_s[:: arm.every], arm.tokens_per_s, strict=True)]
        result[f"ratio_to_{arm.name}"] = round(statistics.median(ratios), 3)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints the result as JSON and writes it to --json."""
    parser = argparse.ArgumentParser(prog="python -m loradeck_serve.engine.baselines", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    parser.add_argument("--replies", type=int, default=1000, help="replies to compare with golden ones, 0 for none")
    parser.add_argument("--without-stock", action="store_true", help="leave stock vLLM's operations out")
    parser.add_argument("--without-bare", action="store_true", help="leave the engine without LoRA out")
    for name, default in asdict(Load()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = parser.parse_args(arguments)
    load = Load(**{name: getattr(options, name) for name in asdict(Load())})
    try:
        result = asyncio.run(
            compare(
                options.base,
                load,
                stock=not options.without_stock,
                bare=not options.without_bare,
                replies=options.replies,
            )
        )
    except LoradeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

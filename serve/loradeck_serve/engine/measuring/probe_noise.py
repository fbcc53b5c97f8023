"""What the probe's tolerance is chosen from: how far right and wrong adapters are from what training saw.

Run as `python -m loradeck_serve.engine.measuring.probe_noise --base FOLDER [--adapter FOLDER …]`. In each precision one
engine serves random adapters of effects from hardly any to strong, and the given (trained) ones, and is compared with
PEFT in the same precision as a server's probe does it. Against that stand adapters with a defect that no check of
their files can see, by PEFT in float32. Distances are means in nats over the 16 tokens of each prompt that the adapter
moves most, the base's tokens and the adapter's own apart. The lead is the largest, in nats, of a served greedy token
over the one that PEFT goes on with.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.errors import LoradeckError
from loradeck_serve.engine.base import EngineAdapter
from loradeck_serve.engine.measuring.peft_answers import PeftBase, probe_of
from loradeck_serve.engine.measuring.synthetic import write_random_adapter
from loradeck_serve.engine.probe import Difference, largest_lead, measure_probe, parts
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine

STRENGTHS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Sizes of random adapters' changes, relative to the weights that they change."""

DTYPES = ("float32", "bfloat16", "float16")
RANK = 8
PROMPTS = 16
PROMPT_TOKENS = 32
GREEDY = 8

Tensors = dict[str, Any]


def _without(part: str) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor * (0.0 if part in name and "lora_B" in name else 1.0) for name, tensor in tensors.items()}

    return change


def _scaled(factor: float) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor * (factor if "lora_B" in name else 1.0) for name, tensor in tensors.items()}

    return change


DEFECTS = {
    "no attention": _without("self_attn"),
    "no o_proj": _without("o_proj"),
    "no first layer": _without("layers.0."),
    "scale halved": _scaled(0.5),
    "scale doubled": _scaled(2.0),
    "scale 10 % off": _scaled(1.1),
    "base instead": _scaled(0.0),
}


@dataclass(frozen=True)
class Row:
    """One comparison: the right adapter's own effect, and how far off the answer is."""

    case: str
    adapter: str
    differences: tuple[Difference, ...]
    lead: float | None = None

    def values(self) -> list[dict[str, Any]]:
        """For the result, one for each kind of tokens."""
        return [
            {
                "case": self.case,
                "adapter": self.adapter,
                "tokens": tokens,
                "error": round(part.error, 6),
                "distance": round(part.distance, 6),
                "share": round(part.error / part.distance, 4) if part.distance else None,
                "lead": None if self.lead is None else round(self.lead, 6),
            }
            for tokens, part in zip(("base", "added"), self.differences, strict=False)
        ]


async def served_rows(base: Path, adapters: dict[str, EngineAdapter], dtype: str) -> list[Row]:
    """Each adapter in the engine against PEFT, both in `dtype`."""
    peft = PeftBase(base, dtype)
    probes = {name: probe_of(peft, adapter, PROMPTS, PROMPT_TOKENS, GREEDY) for name, adapter in adapters.items()}
    settings = EngineSettings(
        model=base,
        dtype=dtype,  # type: ignore[arg-type]
        slots=4,
        host_adapters=max(4, len(adapters)),
        max_rank=max(adapter.rank for adapter in adapters.values()),
        max_model_len=2 * PROMPT_TOKENS,
        kv_cache_gib=0.1,
        vocabulary=peft.vocabulary,
    )
    engine = await VllmEngine.start(settings)
    try:
        rows = []
        for name, adapter in adapters.items():
            await engine.load(adapter)
            found = await measure_probe(engine, probes[name], adapter.digest, adapter.added_token_ids)
            lead = await largest_lead(engine, probes[name], adapter.digest)
            rows.append(Row(dtype, name, tuple(found), lead))
        return rows
    finally:
        await engine.stop()


def defect_rows(base: Path, adapters: dict[str, EngineAdapter]) -> list[Row]:
    """Each adapter with each defect against itself without, by PEFT in float32."""
    from safetensors.torch import load_file, save_file

    peft = PeftBase(base, "float32")
    rows = []
    for name, adapter in adapters.items():
        probe = probe_of(peft, adapter, PROMPTS, PROMPT_TOKENS)
        file = adapter.folder / "adapter_model.safetensors"
        tensors = load_file(str(file))
        try:
            for case, change in DEFECTS.items():
                save_file({key: tensor.contiguous() for key, tensor in change(tensors).items()}, str(file))
                found = parts(probe, peft.answers(probe, adapter), adapter.added_token_ids)
                rows.append(Row(case, name, tuple(found)))
        finally:
            save_file(tensors, str(file), metadata={"format": "pt"})
    return rows


def measure(base: Path, given: Sequence[Path]) -> list[Row]:
    """All rows. The adapters in `given` are copied first; nothing is written to their folders."""
    import shutil

    with tempfile.TemporaryDirectory(prefix="loradeck-probe-") as folder:
        work = Path(folder)
        adapters = {
            f"random {strength:g}": write_random_adapter(
                base, work / f"random-{number}", rank=RANK, seed=number, strength=strength
            )
            for number, strength in enumerate(STRENGTHS)
        }
        for number, source in enumerate(given):
            target = work / f"given-{number}"
            shutil.copytree(source, target)
            adapters[f"{source.parent.name}/{source.name}"] = _read(target)
        rows = []
        for dtype in DTYPES:
            rows += asyncio.run(served_rows(base, adapters, dtype))
        felt = {name: adapter for name, adapter in adapters.items() if name != "random 0"}
        return rows + defect_rows(base, felt)


def _read(folder: Path) -> EngineAdapter:
    from safetensors import safe_open

    rank = int(json.loads((folder / "adapter_config.json").read_text())["r"])
    ids: tuple[int, ...] = ()
    if (folder / "new_tokens.safetensors").is_file():
        with safe_open(str(folder / "new_tokens.safetensors"), "pt") as file:
            ids = tuple(file.get_tensor("ids").tolist())
    return EngineAdapter(folder.name, folder, rank, ids)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints a table and writes the rows to --json."""
    parser = argparse.ArgumentParser(
        prog="python -m loradeck_serve.engine.measuring.probe_noise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--adapter", type=Path, action="append", default=[], help="folder of a trained adapter")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args(arguments)
    try:
        rows = [values for row in measure(options.base, options.adapter) for values in row.values()]
    except LoradeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for row in rows:
        share = "" if row["share"] is None else f"{row['share']:.3f}"
        lead = "" if row["lead"] is None else f"{row['lead']:.4f}"
        names = f"{row['case']:16} {row['adapter']:24} {row['tokens']:6}"
        print(f"{names} {row['error']:10.5f} {row['distance']:10.5f} {share:>8} {lead:>8}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

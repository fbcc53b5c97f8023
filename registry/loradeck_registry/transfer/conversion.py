"""Conversion: a PEFT adapter folder from elsewhere into the published format, where that can be done exactly.

Folds rank and alpha patterns and rsLoRA's scale into B, pads ranks, fills modules that carry no LoRA with zeros, takes
new tokens' rows out of whole matrices, keeps LoRA on the whole embedding and head, and turns PiSSA-like starts into
plain LoRA with their initial weights. What has no exact form is refused, with the reason codes of `servable`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError
from loradeck_registry.servability.adapter import CHANGES_BASE, CONFIG, DTYPES, MODEL, NEW_TOKENS
from loradeck_registry.transfer.lora_pairs import (
    Pairs,
    completed,
    folded,
    read_pairs,
    refuse,
    scale_of,
    stored,
    subtracted,
    tied_together,
)
from loradeck_registry.transfer.new_rows import NewRows, take_new_rows
from loradeck_registry.weights import Weights, check_no_empty_tensor, to_bfloat16, write_weights

_NEVER = {
    "use_dora": "DoRA's magnitudes cannot be written as LoRA",
    "use_qalora": "QA-LoRA pools its inputs",
    "use_bdlora": "block-diagonal LoRA is another method",
    "lora_bias": "a bias on B cannot be written as LoRA",
    "fan_in_fan_out": "weights stored transposed are not supported",
    "target_parameters": "LoRA on bare parameters is not supported",
    "layer_replication": "replicated layers are not supported",
    "alora_invocation_tokens": "activated LoRA is another method",
    "arrow_config": "Arrow routes between adapters",
    "kasa_config": "KaSA is another method",
    "monteclora_config": "MonteCLoRA is another method",
}


@dataclass
class Conversion:
    """What came out, beside the files in the destination folder."""

    findings: list[str] = field(default_factory=list)
    """What was changed or left out, for people."""
    added_tokens: dict[int, str] = field(default_factory=dict)
    """Content of the new tokens by id."""


def convert_adapter(
    source: Path,
    base_folder: Path,
    base: BaseShapes,
    destination: Path,
    *,
    dtype: str | None = None,
    initial: Path | None = None,
) -> Conversion:
    """Write the adapter in `source` to the folder `destination` in the published format.

    `dtype` (float32, bfloat16, float16) is the precision of the result; if None, the stored one where that is
    exact, else float32. `initial` is the folder with the weights at the start of training, for PiSSA-like starts.
    Raises PreconditionError with a reason code where no exact conversion exists, NotFoundError, InvalidError.
    """
    config = _read_config(source)
    weights = _open(source)
    pairs, others = read_pairs(weights, base)
    result = Conversion(_ignored(source))
    scales = sorted({scale_of(module, a.shape[0], config) for module, (a, _) in pairs.items()})
    if scales != [1.0] and scales:
        result.findings.append(f"scale {', '.join(f'{scale:g}' for scale in scales)} folded into B, alpha is the rank")
    pairs = folded(pairs, config)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        pairs = subtracted(pairs, _initial_pairs(source, start, initial, base))
        result.findings.append(f"{start} start subtracted, rank doubled")
    if config.get("ensure_weight_tying"):
        pairs = tied_together(pairs, base)
    narrow = [name for name in base.whole if name in pairs and len(pairs[name][1]) < base.rows]
    pairs, filled, padded = completed(pairs, base)
    if narrow:
        result.findings.append(f"LoRA on {' and '.join(narrow)} filled with zeros to the base's {base.rows} rows")
    if padded:
        result.findings.append("smaller ranks padded with zeros")
    if filled:
        result.findings.append(f"{len(filled)} modules without LoRA filled with zeros: {', '.join(filled[:3])}, …")
    if dtype is not None and dtype not in DTYPES.values():
        raise InvalidError(f"bad precision {dtype!r}: use {', '.join(DTYPES.values())}", field="dtype")
    out = dtype or _exact_dtype(weights, pairs, result)
    rows = take_new_rows(source, weights, others, config, base_folder, base, whole=bool({*base.whole} & {*pairs}))
    result.findings += rows.findings
    result.added_tokens = rows.tokens
    destination.mkdir(parents=True, exist_ok=True)
    _write_model(destination / MODEL, stored(pairs, base), out, result)
    _write_rows(destination / NEW_TOKENS, rows, out)
    _write_config(destination / CONFIG, pairs, config)
    return result


def _read_config(source: Path) -> dict[str, Any]:
    try:
        config = json.loads((source / CONFIG).read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{source} has no {CONFIG}: it is not a PEFT adapter folder", field="source") from None
    except ValueError as error:
        raise InvalidError(f"{source.name}/{CONFIG} is not JSON: {error}", field="source") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise refuse("CONFIG_UNSUPPORTED", "its peft_type is not LORA")
    for key, why in _NEVER.items():
        if config.get(key):
            raise refuse("CONFIG_UNSUPPORTED", f"`{key}` is set: {why}")
    if config.get("bias", "none") != "none":
        raise refuse("CONFIG_UNSUPPORTED", f"`bias` is {config['bias']!r}: trained biases are no LoRA")
    return config


def _open(source: Path) -> Weights:
    path = source / MODEL
    if not path.is_file():
        pickled = (source / "adapter_model.bin").exists()
        what = "only a pickle, which is never read: load it with PEFT and save it again" if pickled else f"no {MODEL}"
        raise NotFoundError(f"{source} has {what}", field="source")
    try:
        weights = Weights(path)
        check_no_empty_tensor(weights)
    except InvalidError as error:
        raise PreconditionError(error.message, reason=error.reason) from error
    return weights


def _ignored(source: Path) -> list[str]:
    taken = {CONFIG, MODEL}
    names = sorted(path.name for path in source.iterdir() if path.name not in taken and not path.name.startswith("."))
    return [f"left out: {', '.join(names)}"] if names else []


def _initial_pairs(source: Path, start: str, initial: Path | None, base: BaseShapes) -> Pairs:
    if initial is None:
        raise refuse(
            "CONFIG_UNSUPPORTED",
            f"it starts from {start}, which changes the base: name the folder of its initial weights (--initial)",
        )
    config = _read_config(initial)
    return folded(read_pairs(_open(initial), base)[0], config)


def _exact_dtype(weights: Weights, pairs: Pairs, result: Conversion) -> str:
    """The stored type if it holds the converted matrices without rounding, else float32."""
    kinds = {tensor.dtype for tensor in weights.tensors.values()} & set(DTYPES)
    stored = DTYPES[kinds.pop()] if len(kinds) == 1 else "float32"
    if any(encode(matrix, stored)[1] for pair in pairs.values() for matrix in pair):
        result.findings.append(f"written as float32, because {stored} would round the folded scale")
        return "float32"
    return stored


def encode(array: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], float]:
    """The array as stored, bfloat16 as bit patterns, and its largest rounding as a share of its largest value."""
    if dtype == "bfloat16":
        stored: NDArray[Any] = to_bfloat16(array)
        back = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        stored = array.astype(dtype)
        back = stored.astype(np.float32)
    if not np.isfinite(back).all():
        raise refuse("DTYPE", f"its values do not fit into {dtype}")
    largest = float(np.max(np.abs(array), initial=0.0))
    error = float(np.max(np.abs(back - array), initial=0.0)) / largest if largest else 0.0
    return stored, error


def _write_model(path: Path, matrices: Mapping[str, NDArray[np.float32]], dtype: str, result: Conversion) -> None:
    if not matrices:
        return
    tensors = {}
    worst = 0.0
    for name, matrix in matrices.items():
        tensors[name], error = encode(matrix, dtype)
        worst = max(worst, error)
    write_weights(path, tensors, bfloat16=dtype == "bfloat16")
    if worst > 0:
        result.findings.append(f"rounded to {dtype}: at most {worst:.1e} of a matrix's largest value")


def _write_rows(path: Path, rows: NewRows, dtype: str) -> None:
    if not rows.tokens:
        return
    tensors: dict[str, NDArray[Any]] = {
        "ids": np.array(list(rows.tokens), np.int64),
        "input_rows": encode(rows.inputs, dtype)[0],
        "output_rows": encode(rows.outputs, dtype)[0],
    }
    write_weights(path, tensors, bfloat16=dtype == "bfloat16")


def _write_config(path: Path, pairs: Pairs, original: Mapping[str, Any]) -> None:
    rank = next(iter(pairs.values()))[0].shape[0] if pairs else 0
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": original.get("lora_dropout", 0.0),
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted({module.rpartition(".")[2] for module in pairs}),
        "task_type": "CAUSAL_LM",
    }
    path.write_text(json.dumps(config, indent=2) + "\n")

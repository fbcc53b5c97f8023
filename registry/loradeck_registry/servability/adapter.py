"""Servability: every check that an adapter passes before it is published and before an engine sees it.

An engine accepts many a broken adapter without a word (wrong shapes, names that match nothing, NaN), so each is looked
for here, with numpy and safetensors headers only. Each kind of defect has a reason code of its own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.manifest import Manifest
from loradeck_registry.servability.matrices import DTYPES, check_dtype, check_finite, check_matrices, refuse
from loradeck_registry.weights import Weights, check_no_empty_tensor

__all__ = ["DTYPES", "AdapterFacts", "BaseShapes", "check_adapter", "read_shapes"]

CONFIG, MODEL, NEW_TOKENS = "adapter_config.json", "adapter_model.safetensors", "new_tokens.safetensors"
MAX_NEW_TOKENS = 64
MAX_CONFIG_BYTES = 1 << 20
_MUST_BE_UNSET = (
    "use_rslora",
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "ensure_weight_tying",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""`init_lora_weights` that begin so change the base's weights at the start of training."""


@dataclass(frozen=True)
class AdapterFacts:
    """What a servable adapter is made of."""

    rank: int
    """0 if it consists of new rows only."""
    dtype: str
    target_modules: tuple[str, ...]
    parameters: int
    bytes: int
    added_token_ids: tuple[int, ...]


def check_adapter(
    folder: Path,
    contract: Manifest | BaseModel | Mapping[str, Any] | None,
    base: BaseShapes,
    *,
    max_rank: int | None = None,
) -> AdapterFacts:
    """Check the adapter in `folder` (published format) and return its facts.

    `contract` is its manifest, or its task (model or JSON), or None for an adapter without one. Raises
    PreconditionError with one of the reasons SYMLINK, FILE_NOT_ALLOWED, MISSING_FILE, NOT_SAFETENSORS, TRUNCATED,
    EMPTY_TENSOR, CONFIG_UNSUPPORTED, BASE_MISMATCH, RANK_TOO_LARGE, NAME_MISMATCH, LEFTOVER_TENSOR, MISSING_TENSOR,
    SHAPE_MISMATCH, DTYPE, NOT_FINITE, NEW_TOKENS, MANIFEST_MISMATCH.
    """
    manifest = contract if isinstance(contract, Manifest) else None
    _check_base(manifest, base)
    _check_files(folder)
    rank, targets = _check_config(folder / CONFIG, base)
    if max_rank is not None and rank > max_rank:
        raise refuse(
            "RANK_TOO_LARGE",
            f"rank {rank} is over the limit of {max_rank}",
            rank=str(rank),
            max_rank=str(max_rank),
        )
    try:
        new_tokens, ids = _check_new_tokens(folder / NEW_TOKENS, _added_tokens(contract), base)
        model = _check_model(folder / MODEL, rank, targets, base, ids)
    except InvalidError as error:
        raise PreconditionError(error.message, reason=error.reason) from error
    parts = [weights for weights in (model, new_tokens) if weights is not None]
    if not parts:
        raise refuse("MISSING_FILE", f"neither {MODEL} nor {NEW_TOKENS}: the adapter holds nothing")
    floats = [t for weights in parts for t in weights.tensors.values() if t.dtype != "I64"]
    facts = AdapterFacts(
        rank=rank,
        dtype=DTYPES[floats[0].dtype],
        target_modules=targets,
        parameters=sum(tensor.size for tensor in floats),
        bytes=sum(weights.path.stat().st_size for weights in parts),
        added_token_ids=ids,
    )
    _check_manifest(manifest, facts)
    return facts


def _check_base(manifest: Manifest | None, base: BaseShapes) -> None:
    if manifest is None or base.identity is None:
        return
    if manifest.kind != "adapter":
        raise refuse("BASE_MISMATCH", f"it is of kind {manifest.kind}, not an adapter; serve it with --base")
    if manifest.base.compatibility != base.identity.compatibility:
        raise refuse(
            "BASE_MISMATCH",
            f"it was trained on {manifest.base.reference}, this base is {base.identity.reference} and differs from it",
            trained_on=manifest.base.reference,
            base=base.identity.reference,
        )


def _check_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise refuse("SYMLINK", f"{name} is a symbolic link")
        if path.is_dir():
            continue
        if path.suffix == ".safetensors" and name not in (MODEL, NEW_TOKENS):
            raise refuse("FILE_NOT_ALLOWED", f"the weights file {name} is none of {MODEL}, {NEW_TOKENS}")
        if path.suffix not in (".safetensors", ".json"):
            raise refuse("FILE_NOT_ALLOWED", f"{name} is neither safetensors nor JSON")


def _check_config(path: Path, base: BaseShapes) -> tuple[int, tuple[str, ...]]:
    if not path.is_file():
        raise refuse("MISSING_FILE", f"{CONFIG} is missing")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise refuse("CONFIG_UNSUPPORTED", f"{CONFIG} has more than {MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise refuse("CONFIG_UNSUPPORTED", f"{CONFIG} is not a JSON object")
    if config.get("peft_type") != "LORA":
        raise refuse("CONFIG_UNSUPPORTED", f"its type is {config.get('peft_type')}, not LORA")
    for key in _MUST_BE_UNSET:
        if config.get(key):
            raise refuse("CONFIG_UNSUPPORTED", f"`{key}` is set in {CONFIG}; `registry import` converts what can be")
    if config.get("bias", "none") != "none":
        raise refuse("CONFIG_UNSUPPORTED", f"`bias` is {config['bias']!r} in {CONFIG}, it must be 'none'")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise refuse(
            "CONFIG_UNSUPPORTED", f"`init_lora_weights` {start!r} changes the base: convert to plain LoRA first"
        )
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
        raise refuse("CONFIG_UNSUPPORTED", f"`r` in {CONFIG} is not a whole number")
    if alpha != rank:
        raise refuse("CONFIG_UNSUPPORTED", f"`lora_alpha` {alpha} differs from `r` {rank}: fold the scale into B first")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise refuse("CONFIG_UNSUPPORTED", "`target_modules` must be a list of module names")
    if unknown := sorted(set(targets) - base.leaves - {name.rpartition(".")[2] for name in base.whole}):
        raise refuse("NAME_MISMATCH", f"`target_modules` names {', '.join(unknown)}, which the base does not have")
    if bool(targets) != bool(rank):
        raise refuse("CONFIG_UNSUPPORTED", f"`r` is {rank} with {len(targets)} target modules")
    return rank, tuple(sorted(set(targets)))


def _check_model(
    path: Path, rank: int, targets: tuple[str, ...], base: BaseShapes, added: Iterable[int]
) -> Weights | None:
    if rank == 0:
        if path.exists():
            raise refuse("LEFTOVER_TENSOR", f"`r` is 0, yet there is a {MODEL}")
        return None
    if not path.is_file():
        raise refuse("MISSING_FILE", f"{MODEL} is missing")
    return check_matrices(path, rank, targets, base, added)


def _added_tokens(contract: Manifest | BaseModel | Mapping[str, Any] | None) -> list[int] | None:
    """Token ids that the task adds, None without a task."""
    task: Any = contract.task if isinstance(contract, Manifest) else contract
    if isinstance(task, BaseModel):
        task = task.model_dump()
    return None if task is None else [int(token["id"]) for token in task.get("added_tokens", ())]


def _check_new_tokens(path: Path, added: list[int] | None, base: BaseShapes) -> tuple[Weights | None, tuple[int, ...]]:
    if not path.exists():
        if added:
            raise refuse("NEW_TOKENS", f"its task adds {len(added)} tokens, but {NEW_TOKENS} is missing")
        return None, ()
    weights = Weights(path)
    check_no_empty_tensor(weights)
    if set(weights.tensors) != {"ids", "input_rows", "output_rows"} or weights.tensors["ids"].dtype != "I64":
        raise refuse("NEW_TOKENS", f"{NEW_TOKENS} must hold ids (int64), input_rows and output_rows")
    shape = weights.tensors["ids"].shape
    if len(shape) != 1 or shape[0] > MAX_NEW_TOKENS:
        raise refuse("NEW_TOKENS", f"ids has shape {list(shape)}: one row of at most {MAX_NEW_TOKENS} is needed")
    rows = ["input_rows", "output_rows"]
    for name in rows:
        if weights.tensors[name].shape != (shape[0], base.hidden):
            raise refuse(
                "NEW_TOKENS",
                f"{name} has shape {list(weights.tensors[name].shape)}, needed is {[shape[0], base.hidden]}",
            )
    check_dtype(weights, rows)
    check_finite(weights, rows)
    ids = [int(i) for i in np.asarray(weights.array("ids"))]
    if len(set(ids)) != len(ids) or min(ids) < base.vocabulary or max(ids) >= base.rows:
        raise refuse(
            "NEW_TOKENS",
            f"ids {min(ids)} to {max(ids)} do not lie, each once, on the base's reserved rows {base.vocabulary} to "
            f"{base.rows - 1}; a base without enough of them gets more with `registry add-base --reserve-tokens`",
        )
    if added is not None and set(ids) != set(added):
        named = f"its task names {sorted(added)[:8]}" if added else "no task names them"
        raise refuse(
            "NEW_TOKENS",
            f"{NEW_TOKENS} brings the tokens {sorted(ids)[:8]} and {named}: give the task that it was trained for "
            "(`registry push --task FILE`)",
        )
    return weights, tuple(ids)


def _check_manifest(manifest: Manifest | None, facts: AdapterFacts) -> None:
    if manifest is None or manifest.lora is None:
        return
    stated = (manifest.lora.rank, manifest.lora.dtype, tuple(sorted(manifest.lora.target_modules)))
    if stated != (facts.rank, facts.dtype, facts.target_modules):
        raise refuse(
            "MANIFEST_MISMATCH",
            f"the manifest states rank {stated[0]}, {stated[1]}, {', '.join(stated[2])}; the files have rank "
            f"{facts.rank}, {facts.dtype}, {', '.join(facts.target_modules)}",
        )

"""Sizes from shapes alone: bytes of a base, of its full checkpoints, and of its adapters by rank and targets."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.bases.known import KNOWN_BASES, KnownBase, known_base
from loradeck_registry.errors import InvalidError, NotFoundError

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
EMBEDDING, HEAD = "embed_tokens", "lm_head"
TARGETS = {
    "q, v": ("q_proj", "v_proj"),
    "attention": ATTENTION,
    "all linear": (*ATTENTION, *MLP),
    "all linear, embedding, head": (*ATTENTION, *MLP, EMBEDDING, HEAD),
}
"""The usual choices of modules, by a name for tables."""
RANKS = (8, 16, 32, 64)
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_FAMILIES = {"llama": False, "mistral": False, "qwen2": True}
"""Architectures that a configuration alone describes, and whether q, k and v have a bias."""


@dataclass(frozen=True)
class SizeRow:
    """One artifact of a base. `bytes` are those of its tensors; `ratio_to_full` compares with a full checkpoint.

    `fits` is how many of it `capacity` bytes hold, of adapters beside their base.
    """

    artifact: str
    kind: str
    base: str
    rank: int | None
    targets: str | None
    parameters: int
    bytes: int
    ratio_to_full: float
    fits: int


def adapter_parameters(base: KnownBase, rank: int, targets: Iterable[str], new_tokens: int = 0) -> int:
    """Parameters of LoRA of this rank on modules named by leaf, and of new tokens' rows (both sides where untied)."""
    wanted = set(targets)
    modules = [shape for name, shape in base.shapes().modules.items() if name.rpartition(".")[2] in wanted]
    modules += [(base.rows + new_tokens, base.hidden)] * len(wanted & ({EMBEDDING} if base.tied else {EMBEDDING, HEAD}))
    rows = new_tokens * base.hidden * (1 if base.tied else 2)
    return sum(rank * (outputs + inputs) for outputs, inputs in modules) + rows


def size_rows(base: KnownBase, ranks: Sequence[int], item: int, capacity: int) -> list[SizeRow]:
    """Rows of the base, a full checkpoint, and adapters, with `item` bytes per parameter."""
    whole = base.parameters * item

    def row(kind: str, artifact: str, parameters: int, rank: int | None, targets: str | None) -> SizeRow:
        size = parameters * item
        room = capacity - whole if kind == "adapter" else capacity
        return SizeRow(artifact, kind, base.hub, rank, targets, parameters, size, size / whole, max(room, 0) // size)

    rows = [row(kind, f"{base.hub} {kind}", base.parameters, None, None) for kind in ("base", "full")]
    for name, targets in TARGETS.items():
        for rank in ranks:
            parameters = adapter_parameters(base, rank, targets)
            rows.append(row("adapter", f"{base.hub} r={rank} {name}", parameters, rank, name))
    return rows


def by_shape(tables: Iterable[list[SizeRow]]) -> list[tuple[list[str], list[SizeRow]]]:
    """Tables of different bases, those of equal sizes once with the names of all of them."""
    found: dict[tuple[int, ...], tuple[list[str], list[SizeRow]]] = {}
    for table in tables:
        names, _ = found.setdefault(tuple(row.bytes for row in table), ([], table))
        names.append(table[0].base)
    return list(found.values())


def find_base(reference: str) -> KnownBase:
    """A built-in record by hub name. Raises NotFoundError that lists what there is."""
    found = known_base(reference)
    if found is None:
        raise NotFoundError(
            f"no built-in configuration of {reference}: give its config.json with --config, or one of "
            f"{', '.join(KNOWN_BASES)}",
            field="base",
        )
    return found


def read_base(path: Path) -> KnownBase:
    """The base that a `config.json` describes; nothing else of it is needed. Raises InvalidError."""
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        family, hidden, heads = config["model_type"], int(config["hidden_size"]), int(config["num_attention_heads"])
        if family not in _FAMILIES or int(config.get("head_dim") or hidden // heads) * heads != hidden:
            raise InvalidError(
                f"{path}: the shapes of {family} models do not follow from the configuration alone; known are "
                f"{', '.join(_FAMILIES)}",
                field="config",
            )
        name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
        return KnownBase(
            hub=name,
            model_type=family,
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            rows=int(config["vocab_size"]),
            vocabulary=int(config["vocab_size"]),
            context=int(config.get("max_position_embeddings", 0)),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=_FAMILIES[family],
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        )
    except OSError as error:
        raise InvalidError(f"cannot read {path}: {error.strerror}", field="config") from error
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InvalidError(f"{path} is not a model's config.json: {error}", field="config") from error

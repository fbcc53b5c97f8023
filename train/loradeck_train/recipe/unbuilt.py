"""What a recipe may one day say and cannot yet: refused by name, never ignored."""

from collections.abc import Mapping
from typing import Any

from loradeck_registry.errors import UnimplementedError

_FIELDS = {
    "lora.rslora": "rank-stabilised scaling",
    "lora.loraplus_ratio": "LoRA+",
    "lora.rank_pattern": "a rank per module",
    "lora.alpha_pattern": "an alpha per module",
    "lora.init": "EVA and PiSSA initialisation",
    "lora.dora": "DoRA",
    "lora.embeddings": "LoRA on the embeddings",
    "quantization": "QLoRA",
    "packing": "packing",
    "loss": "loss on the prompt as well",
    "data.mixture": "mixed tasks with weights",
    "data.streaming": "streaming",
    "optimisation.early_stopping": "early stopping",
    "distributed": "several devices",
    "liger": "Liger kernels",
    "tensorboard": "TensorBoard",
}
_VALUES = {
    "method": {"qlora", "dora"},
    "precision": {"fp16", "int8", "nf4"},
    "task.format": {"blind"},
    "optimisation.scheduler": {"cosine_with_restarts", "polynomial", "inverse_sqrt", "constant_with_warmup"},
    "optimisation.optimizer": {"paged_adamw_8bit", "adamw_8bit", "paged_adamw_32bit", "adafactor", "lion", "sgd"},
}


def refuse_unbuilt(tree: Mapping[str, Any]) -> None:
    """Raise UnimplementedError if the recipe `tree` asks for something known that is not built."""
    for key, value in _leaves(tree):
        for field, what in _FIELDS.items():
            if key == field or key.startswith(f"{field}."):
                raise UnimplementedError(f"recipe key `{field}` ({what}) is not implemented yet", field=field)
        if isinstance(value, str) and value in _VALUES.get(key, ()):
            raise UnimplementedError(f"recipe value `{key}: {value}` is not implemented yet", field=key)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        found.append((path, value))
        if isinstance(value, Mapping):
            found.extend(_leaves(value, f"{path}."))
    return found

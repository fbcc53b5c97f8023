"""The shapes of a base's linear modules, read from its safetensors headers: what an adapter is checked against."""

import re
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.errors import InvalidError
from loradeck_registry.identity import EMBEDDING_SUFFIXES, read_config, read_vocabulary
from loradeck_registry.manifest import BaseIdentity
from loradeck_registry.weights import open_all

_LAYER = re.compile(r"(?P<module>(?:.+\.)?(?:layers|h|blocks)\.(?P<layer>\d+)\..+)\.weight")


@dataclass(frozen=True)
class BaseShapes:
    """What adapters of a base must fit."""

    modules: dict[str, tuple[int, int]]
    """Linear modules of the layers by full name (`model.layers.0.self_attn.q_proj`): (outputs, inputs)."""
    hidden: int
    vocabulary: int
    rows: int
    tied: bool
    identity: BaseIdentity | None = None
    """Given, an adapter's manifest is checked against it."""

    @property
    def leaves(self) -> set[str]:
        """Leaf names of the modules: q_proj, up_proj, …"""
        return {name.rpartition(".")[2] for name in self.modules}


def read_shapes(folder: Path, identity: BaseIdentity | None = None) -> BaseShapes:
    """The shapes of the model in `folder`. Reads headers only. Raises NotFoundError, InvalidError."""
    modules: dict[str, tuple[int, int]] = {}
    embedding: tuple[int, int] | None = None
    for name, weights in open_all(folder).items():
        shape = weights.tensors[name].shape
        if len(shape) != 2:
            continue
        if name.endswith(EMBEDDING_SUFFIXES):
            embedding = (shape[0], shape[1])
        elif match := _LAYER.fullmatch(name):
            modules[match["module"]] = (shape[0], shape[1])
    if embedding is None or not modules:
        raise InvalidError(
            f"{folder.name} has no layers of linear modules: its architecture is not supported", field="base"
        )
    return BaseShapes(
        modules=modules,
        hidden=embedding[1],
        vocabulary=read_vocabulary(folder),
        rows=embedding[0],
        tied=bool(read_config(folder).get("tie_word_embeddings", False)),
        identity=identity,
    )

"""The shapes of a base's matrices, read from its safetensors headers: what an adapter is checked against."""

import re
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.bases.identity import EMBEDDING_SUFFIXES, HEAD_NAMES, read_config, read_vocabulary
from loradeck_registry.errors import InvalidError
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
    embedding: str = "model.embed_tokens"
    """Full name of the embedding, a matrix [rows, hidden]."""
    head: str = "lm_head"
    """Full name of the head, of the same shape: a matrix of its own, or the embedding's under another name (`tied`)."""

    @property
    def leaves(self) -> set[str]:
        """Leaf names of the modules: q_proj, up_proj, …"""
        return {name.rpartition(".")[2] for name in self.modules}

    @property
    def whole(self) -> tuple[str, str]:
        """Names of embedding and head: an adapter's LoRA there changes the row of every token."""
        return self.embedding, self.head


def read_shapes(folder: Path, identity: BaseIdentity | None = None) -> BaseShapes:
    """The shapes of the model in `folder`. Reads headers only. Raises NotFoundError, InvalidError."""
    modules: dict[str, tuple[int, int]] = {}
    embedding: tuple[str, int, int] | None = None
    head: str | None = None
    for name, weights in open_all(folder).items():
        shape = weights.tensors[name].shape
        if len(shape) != 2:
            continue
        if name.endswith(EMBEDDING_SUFFIXES):
            embedding = (name.removesuffix(".weight"), shape[0], shape[1])
        elif name in HEAD_NAMES:
            head = name.removesuffix(".weight")
        elif match := _LAYER.fullmatch(name):
            modules[match["module"]] = (shape[0], shape[1])
    if embedding is None or not modules:
        raise InvalidError(
            f"{folder.name} has no layers of linear modules: its architecture is not supported", field="base"
        )
    return BaseShapes(
        modules=modules,
        hidden=embedding[2],
        vocabulary=read_vocabulary(folder),
        rows=embedding[1],
        tied=bool(read_config(folder).get("tie_word_embeddings", False)),
        identity=identity,
        embedding=embedding[0],
        head=head or _unstored_head(embedding[0]),
    )


def _unstored_head(embedding: str) -> str:
    """Name of a tied head, of which files hold nothing: what its family calls it."""
    return "embed_out" if embedding.endswith("embed_in") else "lm_head"

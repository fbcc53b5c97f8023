"""A small deck for server tests: a tiny base, and a registry with an adapter of each task."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.bases.resolve import ResolvedBase, resolve_base
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.defaults import default_task
from tests.support.tiny import make_tiny_adapter, make_tiny_base

LABELS = ("Economy", "Health", "Education")
RANK = 8


@dataclass(frozen=True)
class Deck:
    """Where everything lies."""

    folder: Path
    base: ResolvedBase
    registry: Registry

    @property
    def url(self) -> str:
        """Of the registry."""
        return str(self.folder / "registry")

    @property
    def cache(self) -> Path:
        """The server's own file cache."""
        return self.folder / "server-cache"

    def task(self, kind: Any, *, label_tokens: bool = True, **changes: Any) -> Mapping[str, Any]:
        """A task as JSON; a classification has `LABELS`, on label tokens unless told otherwise."""
        if kind == "classification":
            first = self.base.identity.vocabulary
            tokens = [f"<label-{index}>" for index in range(len(LABELS))] if label_tokens else [None] * len(LABELS)
            changes["labels"] = [{"name": n, "token": t} for n, t in zip(LABELS, tokens, strict=True)]
            if label_tokens:
                changes["added_tokens"] = [{"content": t, "id": first + i} for i, t in enumerate(tokens)]
        return default_task(kind, **changes).model_dump(mode="json")

    def publish(
        self,
        name: str,
        kind: Any,
        seed: int,
        *,
        alias: str | None = None,
        label_tokens: bool = True,
        probe: Mapping[str, Any] | None = None,
        scale: float = 1.0,
        **changes: Any,
    ) -> Revision:
        """Publish a random adapter; two seeds answer differently."""
        added = len(LABELS) if kind == "classification" and label_tokens else 0
        folder = self.folder / "made" / f"{name}-{seed}"
        make_tiny_adapter(self.base.folder, folder, rank=RANK, seed=seed, added_tokens=added, scale=scale)
        task = self.task(kind, label_tokens=label_tokens, **changes)
        return push_folder(self.registry, name, folder, self.base, task=task, probe=probe, alias=alias)


def make_deck(folder: Path, *, base_seed: int = 0) -> Deck:
    """A tiny base and an empty registry."""
    base = make_tiny_base(folder / "base", seed=base_seed)
    registry = Registry.init(folder / "registry", cache=folder / "writer-cache")
    return Deck(folder, resolve_base(f"dir:{base}", registry), registry)


def fill(deck: Deck) -> None:
    """Two revisions of a classifier (prod on the first), one adapter of each other task, one with text labels."""
    deck.publish("clf", "classification", 1, alias="prod")
    deck.publish("clf", "classification", 2)
    deck.publish("clf-text", "classification", 3, label_tokens=False)
    deck.publish("short", "short_qa", 4, max_tokens=12)
    deck.publish("long", "long_qa", 5, alias="prod", max_tokens=24)
    deck.publish("long", "long_qa", 6, max_tokens=24)
    deck.publish("free", "generate", 7, template="Say {what} about {topic}", max_tokens=16)

"""What a server is made of, found and checked before anything is started."""

import os
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.bases.shapes import read_shapes
from loradeck_registry.cache import default_folder
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.servability.adapter import BaseShapes
from loradeck_serve.config import ServerConfig
from loradeck_serve.engine_start import engine_settings, served_base
from loradeck_serve.served_base import ServedBase


@dataclass(frozen=True)
class Sources:
    """What the server is made of, found and checked before anything is started."""

    config: ServerConfig
    registry: Registry | None
    base: ServedBase
    shapes: BaseShapes

    @classmethod
    def find(cls, config: ServerConfig) -> "Sources":
        """Open the registry and bring the base here. Blocks. Raises LoradeckError with one line."""
        registry = None
        if config.registry is not None:
            registry = Registry.open(config.registry, cache=config.cache)
            _check_writable(config.cache or default_folder())
        resolved = resolve_base(config.base, registry)
        base = served_base(config, resolved)
        return cls(config, registry, base, read_shapes(resolved.folder, resolved.identity))

    @property
    def bytes_per_rank(self) -> int:
        """Bytes of one rank on every linear layer, and on embedding and head where the engine takes that, in two-byte
        precision as published."""
        sides = [*self.shapes.modules.values()]
        if engine_settings(self.config, self.base).embedding_lora:
            sides += [(self.shapes.rows, self.shapes.hidden)] * len(self.shapes.whole)
        return 2 * sum(rows + columns for rows, columns in sides)

    @property
    def cache(self) -> Path:
        """The folder of the local file cache."""
        return self.config.cache or default_folder()

    @property
    def places(self) -> dict[str, str]:
        """Where registry, cache and base lie on this machine, and what is said of them elsewhere."""
        places = {str(self.cache): "the cache", str(self.base.folder): "the base"}
        if self.registry is not None:
            places[self.registry.url] = "the registry"
        # A relative path is as good as a word, and tells nobody anything.
        return {place: name for place, name in places.items() if "://" in place or Path(place).is_absolute()}


def _check_writable(cache: Path) -> None:
    """Adapters come through the cache: a server that cannot write there would get ready, and serve none."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise PreconditionError(
            f"cannot write to the cache {cache}: set `cache`, or LORADECK_CACHE, to a folder that it can write",
            reason="NOT_PERMITTED",
            field="cache",
        )

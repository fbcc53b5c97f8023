"""What the front end tells the plugin in the engine's processes: one environment variable, set only while it starts."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

VARIABLE = "LORADECK_ENGINE_PLUGIN"


@dataclass(frozen=True)
class PluginOptions:
    """Settings of one engine, as its processes need them."""

    front_end: int
    """Process id of the server; the engine's processes end with it."""
    rows: int
    """Rows of the embedding."""
    vocabulary: int
    """First reserved row; equal to `rows` where nothing is reserved."""
    base_added_token_ids: tuple[int, ...]
    """Reserved ids that requests without an adapter may produce."""
    max_added_tokens: int
    """Rows of a slot's table of new tokens."""
    embedding_lora: bool
    """Whether LoRA on the whole embedding and head is wanted."""
    slots: int
    """Adapters in one batch; 0 without LoRA."""
    operations: str = "loradeck"
    """`loradeck` for this project's adapter operations on a CPU, `stock` for vLLM's own (for comparison)."""

    compiled: bool = False
    """Whether a model with adapters is compiled on a CPU, which vLLM alone does not do."""

    @property
    def table_rows(self) -> int:
        """Rows of a slot's table: the reserved rows that an adapter can use."""
        return min(self.rows - self.vocabulary, self.max_added_tokens)

    def signature(self) -> str:
        """What the compiled model depends on beyond vLLM's own configuration: these options and the plugin's source.

        vLLM keeps compiled models on disk under a hash of its configuration alone: the same base with other reserved
        rows, or with the plugin as it was, must not find them.
        """
        values = {name: value for name, value in asdict(self).items() if name != "front_end"}
        return hashlib.sha256(f"{_source()}{json.dumps(values, sort_keys=True)}".encode()).hexdigest()[:24]

    def to_environment(self) -> dict[str, str]:
        """The variable to set for the engine's processes."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> "PluginOptions | None":
        """The options of the engine that this process belongs to, if it is one of ours."""
        text = os.environ.get(VARIABLE)
        if not text:
            return None
        values = json.loads(text)
        values["base_added_token_ids"] = tuple(values["base_added_token_ids"])
        return cls(**values)


@lru_cache(maxsize=1)
def _source() -> str:
    """Hash of the plugin's source."""
    hashed = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()

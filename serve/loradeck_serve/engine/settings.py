"""What an engine is started with: a typed model that is checked before torch or vLLM are imported."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loradeck_registry.errors import InvalidError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM can be started with: the adapters' largest rank is rounded up to one of them."""

OURS = frozenset(
    {
        "model",
        "dtype",
        "max_model_len",
        "max_num_seqs",
        "enable_lora",
        "max_loras",
        "max_cpu_loras",
        "max_lora_rank",
        "lora_dtype",
        "enforce_eager",
        "skip_tokenizer_init",
        "scheduling_policy",
        "kv_cache_memory_bytes",
        "generation_config",
        "logprobs_mode",
        "speculative_config",
        "disable_log_stats",
    }
)
"""vLLM options that this model sets itself, or that the engine's promises rule out."""


INSTEAD = {
    "model": "base",
    "max_num_seqs": "limits.concurrent",
    "enable_lora": "slots",
    "max_loras": "slots",
    "max_cpu_loras": "host_adapters",
    "max_lora_rank": "max_rank",
    "lora_dtype": "engine.dtype",
    "kv_cache_memory_bytes": "engine.kv_cache_gib",
}
"""The server's settings that stand for vLLM's."""


class EngineSettings(BaseModel):
    """One engine on one base model.

    The engine serves adapters when `slots` is not 0, and the base alone (for example a full checkpoint) otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="folder of the base: configuration and safetensors, reserved rows included")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="precision of weights and activations; auto takes the configuration's, and bfloat16 for float32",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="most tokens of prompt and output together; unset, what the model allows"
    )
    slots: int = Field(default=4, ge=0, le=1024, description="adapters in one batch; 0 starts an engine without LoRA")
    host_adapters: int | None = Field(
        default=None, ge=1, description="adapters held in host memory, slots included; unset, four times `slots`"
    )
    max_rank: int = Field(default=16, ge=1, le=512, description="largest rank an adapter may have")
    embedding_lora: bool = Field(
        default=False,
        description="accept LoRA on the whole embedding and head; costs slots x rows x rank of memory for each of both",
    )
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="size of the key-value cache in GiB; unset, vLLM's own choice"
    )
    max_batch_requests: int = Field(default=256, ge=1, description="requests in one batch")
    enforce_eager: bool | None = Field(
        default=None,
        description="run operation by operation, without compilation and graphs: a quicker first start and slower "
        "answers; unset, the model is compiled wherever vLLM can, and on a CPU also where there are adapters",
    )
    vocabulary: int | None = Field(
        default=None,
        ge=1,
        description="rows of the embedding that the base's tokenizer uses; the rest is reserved for added tokens",
    )
    base_added_token_ids: tuple[int, ...] = Field(
        default=(), description="reserved ids that requests without an adapter may use: a full checkpoint's own tokens"
    )
    max_added_tokens: int = Field(default=128, ge=1, description="most new tokens of one adapter")
    engine: dict[str, Any] = Field(
        default_factory=dict, description="further vLLM engine arguments by name, passed through as they are"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.slots and self.host_adapters is not None and self.host_adapters < self.slots:
            raise ValueError(f"host_adapters ({self.host_adapters}) must be at least slots ({self.slots})")
        if taken := sorted(OURS & self.engine.keys()):
            instead = [f"`{INSTEAD[name]}`" for name in taken if name in INSTEAD]
            use = f"; set {', '.join(instead)}" if instead else ", the server decides that"
            raise ValueError(f"engine: {', '.join(taken)} cannot be passed through{use}")
        if self.base_added_token_ids and self.vocabulary is None:
            raise ValueError("base_added_token_ids needs vocabulary")
        if self.vocabulary is not None and any(i < self.vocabulary for i in self.base_added_token_ids):
            raise ValueError("base_added_token_ids must not be below vocabulary")
        return self

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "EngineSettings":
        """Validate `values`. Raises InvalidError with one line that names the field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise InvalidError(
                f"engine settings: {name}: {message}" if name else f"engine settings: {message}", field=name or "engine"
            ) from error

    @property
    def loaded_limit(self) -> int:
        """Adapters that may be loaded at once."""
        return self.host_adapters or 4 * self.slots

    @property
    def engine_rank(self) -> int:
        """`max_rank` rounded up to a rank that vLLM knows."""
        return next(rank for rank in RANKS if rank >= self.max_rank)

    def rows(self) -> int:
        """Rows of the base's embedding, from its configuration. Raises InvalidError if it cannot be read."""
        try:
            config = json.loads((self.model / "config.json").read_text())
            return int(config.get("text_config", config)["vocab_size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidError(
                f"{self.model} is not a model folder: config.json with vocab_size is needed", field="model"
            ) from error

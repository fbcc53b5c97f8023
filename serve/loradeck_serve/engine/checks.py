"""Checks in front of the engine: what reaches vLLM can neither end it nor be taken for something else."""

import json
import re
from collections.abc import Sequence
from typing import Any

from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError
from loradeck_serve.engine.base import EngineAdapter
from loradeck_serve.engine.plugin.options import PluginOptions

WHOLE = ("embed_tokens", "lm_head")
"""Modules in which a LoRA changes the row of every token."""


def check_adapter(adapter: EngineAdapter, options: PluginOptions, max_rank: int) -> None:
    """Raise PreconditionError for an adapter that the engine would misread.

    This is the engine's own, last look at names and sizes; the full validation of a revision happens before.
    """
    config = _config(adapter)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if rank != adapter.rank or (rank and alpha != rank):
        raise PreconditionError(
            f"adapter {adapter.digest}: rank {rank} and alpha {alpha} in its configuration must both be {adapter.rank}",
            reason="ADAPTER_CONFIG",
        )
    if adapter.rank > max_rank:
        raise PreconditionError(
            f"adapter {adapter.digest} has rank {adapter.rank}, over this engine's {max_rank}: raise max_rank",
            reason="RANK_TOO_LARGE",
        )
    if (wide := sorted({*WHOLE} & {*config.get("target_modules", ())})) and not options.embedding_lora:
        raise PreconditionError(
            f"adapter {adapter.digest} carries LoRA on the whole of {' and '.join(wide)}: start the server with "
            "`engine.embedding_lora: true` for that",
            reason="EMBEDDING_LORA_OFF",
        )
    if adapter.rank and not (adapter.folder / "adapter_model.safetensors").is_file():
        raise PreconditionError(f"adapter {adapter.digest} has no adapter_model.safetensors", reason="FILE_MISSING")
    ids = adapter.added_token_ids
    if bool(ids) != (adapter.folder / "new_tokens.safetensors").is_file():
        raise PreconditionError(
            f"adapter {adapter.digest}: new_tokens.safetensors and its added token ids do not go together",
            reason="NEW_TOKENS",
        )
    if ids and not (options.vocabulary <= min(ids) and max(ids) < options.vocabulary + options.table_rows):
        raise PreconditionError(
            f"adapter {adapter.digest} adds tokens up to id {max(ids)}; this engine has rows for "
            f"{options.vocabulary} to {options.vocabulary + options.table_rows - 1}",
            reason="NEW_TOKENS",
        )


def _config(adapter: EngineAdapter) -> dict[str, Any]:
    try:
        config = json.loads((adapter.folder / "adapter_config.json").read_text())
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"adapter {adapter.digest}: adapter_config.json cannot be read", reason="ADAPTER_CONFIG"
        ) from error
    if not isinstance(config, dict):
        raise PreconditionError(
            f"adapter {adapter.digest}: adapter_config.json is not an object", reason="ADAPTER_CONFIG"
        )
    return config


def allowed_tokens(options: PluginOptions, adapter: EngineAdapter | None) -> frozenset[int]:
    """Reserved ids that a request may read and write: its adapter's, or the base's own."""
    return frozenset(adapter.added_token_ids if adapter is not None else options.base_added_token_ids)


def check_prompt(prompt: Sequence[int], options: PluginOptions, own: frozenset[int], longest: int) -> None:
    """Raise InvalidError unless `prompt` has 1 to `longest` - 1 tokens, each the base's or in `own`."""
    if not prompt:
        raise InvalidError("the prompt is empty", field="prompt")
    if len(prompt) >= longest:
        raise InvalidError(
            f"the prompt has {len(prompt)} tokens; at most {longest - 1} fit in the context",
            field="prompt",
            reason="PROMPT_TOO_LONG",
        )
    if min(prompt) < 0 or (max(prompt) >= options.vocabulary and not _known(prompt, options, own)):
        raise InvalidError("the prompt holds tokens that the model does not have", field="prompt")


def _known(prompt: Sequence[int], options: PluginOptions, own: frozenset[int]) -> bool:
    return all(token in own for token in prompt if token >= options.vocabulary)


def reach(candidate: Sequence[int], options: PluginOptions, own: frozenset[int]) -> int:
    """How many tokens of `candidate` come before the first that the request cannot produce."""
    for position, token in enumerate(candidate):
        if token >= options.vocabulary and token not in own:
            return position
    return len(candidate)


def check_candidates(candidates: Sequence[Sequence[int]], rows: int) -> None:
    """Raise InvalidError unless there are candidates, none is empty, and all their tokens are the model's."""
    if not candidates or not all(candidates):
        raise InvalidError("every candidate needs at least one token", field="candidates")
    if any(not 0 <= token < rows for candidate in candidates for token in candidate):
        raise InvalidError("a candidate holds a token that the model does not have", field="candidates")


def not_loaded(digest: str) -> NotFoundError:
    """The error for an adapter that the engine does not hold."""
    return NotFoundError(f"adapter {digest} is not loaded in the engine", reason="NOT_LOADED")


def first_line(error: BaseException) -> str:
    """The first line of an error's text: what a user can read, without what vLLM's processes put around it."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    inner = re.search(r"Worker failed with error '(.*?)', please check", line)
    return inner.group(1) if inner and inner.group(1) else line

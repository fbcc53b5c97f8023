"""From engine settings to what vLLM is started with: its arguments, its environment, and the plugin's options."""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from loradeck_registry.errors import InvalidError
from loradeck_serve.engine.plugin.options import PluginOptions
from loradeck_serve.engine.processes import Tether
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.sockets import SocketFolder
from loradeck_serve.engine.statistics import Snapshot, snapshot_logger

CPU_KV_CACHE_GIB = 2.0
"""Key-value cache on a CPU where nothing is set: vLLM's own default there is a share of all memory of the machine."""

QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set unless the user has set them: no usage reports, and no log of every step."""


def plugin_options(settings: EngineSettings, operations: str = "loradeck") -> PluginOptions:
    """What the engine's processes must know. Raises InvalidError if `vocabulary` exceeds the model's rows."""
    rows = settings.rows()
    vocabulary = settings.vocabulary if settings.vocabulary is not None else rows
    if vocabulary > rows:
        raise InvalidError(f"vocabulary ({vocabulary}) exceeds the model's {rows} rows", field="vocabulary")
    if any(i >= rows for i in settings.base_added_token_ids):
        raise InvalidError(f"base_added_token_ids must be below the model's {rows} rows", field="base_added_token_ids")
    return PluginOptions(
        front_end=os.getpid(),
        rows=rows,
        vocabulary=vocabulary,
        base_added_token_ids=settings.base_added_token_ids,
        max_added_tokens=settings.max_added_tokens,
        embedding_lora=settings.embedding_lora,
        slots=settings.slots,
        operations=operations,
        compiled=bool(settings.slots) and not settings.enforce_eager and operations == "loradeck",
    )


def engine_arguments(settings: EngineSettings, options: PluginOptions) -> Any:
    """vLLM's AsyncEngineArgs. Raises InvalidError for a name in `engine` that vLLM does not know."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    known = [field.name for field in fields(AsyncEngineArgs)]
    for name in settings.engine:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidError(f"engine: vLLM has no argument {name!r}{hint}", field=f"engine.{name}")
    values: dict[str, Any] = {
        "model": str(settings.model),
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_batch_requests,
        # Token ids go in and come out; the tokenizer belongs to the adapter and lives in the front end.
        "skip_tokenizer_init": True,
        "scheduling_policy": "priority",
        # Sampling defaults come from the task, never from the model's folder.
        "generation_config": "vllm",
        "disable_log_stats": True,
        "enable_log_requests": False,
        "seed": 0,
        "additional_config": {"loradeck": Tether(options.signature()), **settings.engine.get("additional_config", {})},
    }
    gib = settings.kv_cache_gib
    if gib is None and current_platform.is_cpu() and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        gib = CPU_KV_CACHE_GIB
    if gib is not None:
        values["kv_cache_memory_bytes"] = int(gib * 2**30)
    if settings.enforce_eager is not None:
        values["enforce_eager"] = settings.enforce_eager
    if settings.slots:
        values |= {
            "enable_lora": True,
            "max_loras": settings.slots,
            "max_lora_rank": settings.engine_rank,
            # One more than is ever admitted: the engine must never evict, since it may take a running adapter.
            "max_cpu_loras": settings.loaded_limit + 1,
        }
    passed = {name: value for name, value in settings.engine.items() if name != "additional_config"}
    return AsyncEngineArgs(**(values | passed))


def build(settings: EngineSettings, options: PluginOptions, state: Snapshot, sockets: SocketFolder) -> Any:
    """Start vLLM's processes and return its AsyncLLM. Blocks until they are up (tens of seconds)."""
    # Before the first import: vLLM reads these when it is imported.
    with engine_environment(settings, options, sockets):
        arguments = engine_arguments(settings, options)
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if options.compiled and current_platform.is_cpu():
            from loradeck_serve.engine.plugin.compiled import compilation_kept

            with compilation_kept():
                return AsyncLLM.from_engine_args(arguments, stat_loggers=[snapshot_logger(state)])
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[snapshot_logger(state)])


@contextmanager
def engine_environment(settings: EngineSettings, options: PluginOptions, sockets: SocketFolder) -> Iterator[None]:
    """Environment in which the engine's processes are started; this process has its own back afterwards."""
    quiet = {name: value for name, value in QUIET.items() if name not in os.environ}
    own = options.to_environment() | sockets.environment()
    wanted = quiet | own
    removed = ["VLLM_CPU_KVCACHE_SPACE"] if settings.kv_cache_gib is not None else []
    before = {name: os.environ.get(name) for name in [*wanted, *removed]}
    for name in removed:
        os.environ.pop(name, None)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            # The quiet settings stay: vLLM reads them in this process too, whenever it first needs them.
            if value is not None:
                os.environ[name] = value
            elif name in own:
                os.environ.pop(name, None)

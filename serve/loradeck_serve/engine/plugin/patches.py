"""Where the plugin changes vLLM: four places, each replaced by a function that calls what was there."""

from typing import Any

import torch

from loradeck_serve.engine.plugin.new_tokens import NewTokenTables
from loradeck_serve.engine.plugin.options import PluginOptions
from loradeck_serve.engine.versions import vllm_version

EMBEDDING_MODULES = {"embed_tokens": "input_embeddings", "lm_head": "output_embeddings"}

_installed: PluginOptions | None = None


def install(options: PluginOptions) -> None:
    """Change vLLM in this process as `options` say. Raises PreconditionError for a version that is not known."""
    global _installed
    if _installed is not None:
        return
    _installed = options
    vllm_version()
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _allow_amx()
        _zero_new_blocks()
    state = EngineState(options)
    if options.rows > options.vocabulary:
        _patch_logits(state)
    if options.slots:
        _patch_adapters(state)
        if current_platform.is_cpu() and options.operations == "loradeck":
            _patch_operations()
        if options.compiled or not current_platform.is_cpu():
            from loradeck_serve.engine.plugin import compiled

            compiled.define_operations(current_platform.dispatch_key)
            if current_platform.is_cpu():
                compiled.hide_layers()


class EngineState:
    """What the changed places share in one process."""

    def __init__(self, options: PluginOptions) -> None:
        self.options = options
        self.tables = NewTokenTables(
            options.slots, options.table_rows, options.vocabulary, options.rows, options.base_added_token_ids
        )
        self.wrapper: Any = None
        """vLLM's per-batch mapping of tokens and of sampled rows to slots."""

    @property
    def reserved(self) -> bool:
        """Whether the base has reserved rows at all."""
        return self.options.rows > self.options.vocabulary


def _allow_amx() -> None:
    """Ask the kernel for AMX, which vLLM's bfloat16 attention uses without having asked.

    The matrix library asks when it first needs AMX; if the first batch is so small that it does not, the attention
    kernel ends the process with an illegal instruction.
    """
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def _zero_new_blocks() -> None:
    """Have every block of the key-value cache zeroed when a request gets it, as vLLM does for some models.

    Attention on a CPU reads blocks to their end and weighs what lies behind the request's tokens with zero, and zero
    times NaN is NaN: an adapter whose activations overflow would break whoever gets its blocks next.
    """
    from vllm.v1.kv_cache_interface import KVCacheConfig

    if not isinstance(getattr(KVCacheConfig, "needs_kv_cache_zeroing", None), property):
        raise RuntimeError("this vLLM cannot zero new blocks of the key-value cache: use version 0.32")
    KVCacheConfig.needs_kv_cache_zeroing = property(lambda self: True)


def _patch_operations() -> None:
    from vllm.platforms import current_platform

    platform = type(current_platform)
    name = "loradeck_serve.engine.plugin.punica.GroupedPunicaWrapper"
    platform.get_punica_wrapper = classmethod(lambda cls: name)


def _patch_logits(state: EngineState) -> None:
    """Put each request's own reserved logits in place and block all others, after scaling and capping."""
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    original = LogitsProcessor.forward

    def forward(self: Any, lm_head: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        logits = original(self, lm_head, hidden_states, *args, **kwargs)
        if logits is None or logits.shape[-1] < state.options.rows:
            return logits
        slots = state.wrapper.sampler_indices if state.wrapper is not None else None
        if slots is not None and len(slots) != len(logits):
            # vLLM's own trial runs at start; a request of an adapter must never get here.
            if not state.tables.is_filled:
                slots = None
            else:
                raise RuntimeError(f"{len(logits)} rows of logits but {len(slots)} requests in the batch")
        reserved = logits[:, state.options.vocabulary : state.options.rows]
        if slots is not None:
            own = state.tables.logits(hidden_states, slots)
            if own is not None:
                own = _cap_and_scale(self, own + _lora_part(self, hidden_states, state))
                with_slot = (slots >= 0).unsqueeze(-1)
                table = reserved[:, : own.shape[-1]]
                table.copy_(torch.where(with_slot, own.to(table.dtype), table))
        reserved.masked_fill_(state.tables.blocked(slots, len(logits)), float("-inf"))
        return logits

    LogitsProcessor.forward = forward


def _cap_and_scale(processor: Any, logits: Any) -> Any:
    if processor.soft_cap is not None:
        logits = torch.tanh(logits / processor.soft_cap) * processor.soft_cap
    return logits * processor.scale if processor.scale != 1.0 else logits


def _lora_part(processor: Any, hidden: Any, state: EngineState) -> Any:
    """What LoRA on the whole head adds to the logits of the table's rows; 0 without it."""
    b = getattr(processor, "lora_b_stacked", None)
    if b is None:
        return 0.0
    first, count = state.options.vocabulary, state.options.table_rows
    part = torch.zeros(len(hidden), count, dtype=hidden.dtype, device=hidden.device)
    rows = b[:, :, first : first + count]
    state.wrapper.add_lora_logits(part, hidden, processor.lora_a_stacked, rows, 1.0)
    return part


def _patch_adapters(state: EngineState) -> None:
    from vllm.lora.model_manager import LoRAModelManager
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
    from vllm.model_executor.models.llama import LlamaForCausalLM
    from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM

    from loradeck_serve.engine.plugin import adapters

    modules = EMBEDDING_MODULES if state.options.embedding_lora else {}
    for model_class in (LlamaForCausalLM, Qwen2ForCausalLM):
        model_class.embedding_modules = dict(modules)

    create = LRUCacheWorkerLoRAManager.create_lora_manager

    def create_lora_manager(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        result = create(self, model, *args, **kwargs)
        adapters.attach(self, model, state)
        return result

    LRUCacheWorkerLoRAManager.create_lora_manager = create_lora_manager

    load = LRUCacheWorkerLoRAManager._load_adapter

    def load_adapter(self: Any, lora_request: Any) -> Any:
        return adapters.load(self, lora_request, load, state)

    LRUCacheWorkerLoRAManager._load_adapter = load_adapter

    add = LRUCacheWorkerLoRAManager.add_adapter

    def add_adapter(self: Any, lora_request: Any) -> Any:
        return adapters.add(self, lora_request, add)

    LRUCacheWorkerLoRAManager.add_adapter = add_adapter

    merge = LoRAModelManager._create_merged_loras_inplace

    def create_merged_loras(self: Any, lora_model: Any) -> None:
        # vLLM takes for granted that there are matrices; an adapter of new tokens only has none.
        if lora_model.loras:
            merge(self, lora_model)

    LoRAModelManager._create_merged_loras_inplace = create_merged_loras

    activate = LoRAModelManager.activate_adapter

    def activate_adapter(self: Any, lora_id: int) -> Any:
        changed = activate(self, lora_id)
        if changed:
            adapters.activated(self, lora_id, state)
        return changed

    LoRAModelManager.activate_adapter = activate_adapter

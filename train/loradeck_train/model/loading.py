"""The base as a causal model in memory: device, attention, precision, 4-bit weights."""

from pathlib import Path
from typing import Any

import torch

from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.world import World
from loradeck_train.model.attention import PACKED, register_packed_attention, supports_packed
from loradeck_train.recipe.lora import QuantizationSettings

_EAGER_LENGTH = 1024


def device() -> torch.device:
    """Where whole models are held: this process's GPU if there is one, else the CPU. A model that is spread over
    processes may not fit one GPU, so that it is put together and looked at on the CPU."""
    world = World.here()
    if not torch.cuda.is_available() or world.sharding is not None:
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank)


def choose_attention(precision: str, longest: int, packed: Path | None = None) -> str:
    """Attention implementation. `packed` is the base's folder where rows are packed: plain causal attention then goes
    example by example, and anything else through transformers' block mask.

    The CPU's fused bfloat16 attention has a backward pass that takes 1.5 times as long as plain matrix products while
    sequences are short (measured at 150 tokens), so those go without it.
    """
    if packed is not None:
        from transformers import AutoConfig

        register_packed_attention()
        return PACKED if supports_packed(AutoConfig.from_pretrained(str(packed), local_files_only=True)) else "sdpa"
    return attention_for(precision, longest, packed=False, cuda=device().type == "cuda")


def attention_for(precision: str, longest: int, *, packed: bool, cuda: bool) -> str:
    """What `choose_attention` chooses on a device with or without CUDA; of packed rows, what needs the same memory."""
    plain = not cuda and not packed and precision == "bf16" and longest <= _EAGER_LENGTH
    return "eager" if plain else "sdpa"


def load_causal(
    folder: Path, dtype: torch.dtype, attention: str = "sdpa", quantization: QuantizationSettings | None = None
) -> Any:
    """A causal model from local safetensors; with `quantization`, its linear layers in 4 bits, products in `dtype`.

    Raises PreconditionError (BASE_NOT_LOADABLE; BITSANDBYTES_MISSING).
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    more = {} if quantization is None else {"quantization_config": _four_bits(quantization, dtype)}
    try:
        causal = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=attention, local_files_only=True, use_safetensors=True, **more
        )
    except (OSError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())[:200]
        raise PreconditionError(f"the base cannot be loaded: {line}", reason="BASE_NOT_LOADABLE") from error
    for module in causal.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes packs 4-bit weights for the CPU at the first look in eval mode, and cannot train them then.
            module.support_avx512bf16_for_cpu = False
    return causal


def _four_bits(settings: QuantizationSettings, dtype: torch.dtype) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise PreconditionError(
            "QLoRA needs the package bitsandbytes: pip install 'loradeck[qlora]', or leave `quantization` out",
            reason="BITSANDBYTES_MISSING",
            field="quantization",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.kind,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=dtype,
    )

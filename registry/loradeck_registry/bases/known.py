"""Configuration records of the bases that the shipped recipes name: shapes and counts without weights or network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loradeck_registry.bases.shapes import BaseShapes


@dataclass(frozen=True)
class KnownBase:
    """A base as its published `config.json` describes it."""

    hub: str
    model_type: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    rows: int
    """Rows of the embedding matrix."""
    vocabulary: int
    """Rows that the tokenizer uses."""
    context: int
    tied: bool
    attention_bias: bool
    """Whether q, k and v carry a bias (Qwen2)."""
    norm_epsilon: float

    @property
    def config(self) -> Mapping[str, Any]:
        """The keys of `config.json` that decide shapes, as transformers reads them."""
        return {
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "vocab_size": self.rows,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "rms_norm_eps": self.norm_epsilon,
            "hidden_act": "silu",
        }

    def shapes(self) -> BaseShapes:
        """Linear modules as (outputs, inputs), as `read_shapes` reads them from weights."""
        head = self.hidden // self.heads
        narrow = self.key_value_heads * head
        leaves = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (narrow, self.hidden),
            "self_attn.v_proj": (narrow, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        modules = {f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in leaves.items()}
        return BaseShapes(modules, self.hidden, self.vocabulary, self.rows, self.tied)

    @property
    def parameters(self) -> int:
        """All parameters; a tied matrix counts once."""
        linear = sum(outputs * inputs for outputs, inputs in self.shapes().modules.values())
        narrow = self.key_value_heads * (self.hidden // self.heads)
        biases = self.layers * (self.hidden + 2 * narrow) if self.attention_bias else 0
        norms = (2 * self.layers + 1) * self.hidden
        return linear + biases + norms + self.rows * self.hidden * (1 if self.tied else 2)


def _qwen2(
    hub: str, hidden: int, intermediate: int, heads: int, kv: int, rows: int, used: int, **more: Any
) -> KnownBase:
    return KnownBase(hub, "qwen2", hidden, intermediate, 28, heads, kv, rows, used, attention_bias=True, **more)


def _llama(hub: str, hidden: int, intermediate: int, layers: int, heads: int, kv: int, context: int) -> KnownBase:
    return KnownBase(
        hub, "llama", hidden, intermediate, layers, heads, kv, 32000, 32000, context, False, False, 1e-5
    )  # fmt: skip


KNOWN_BASES = {
    base.hub: base
    for base in (
        _qwen2("Qwen/Qwen2-7B", 3584, 18944, 28, 4, 152064, 151646, context=131072, tied=False, norm_epsilon=1e-6),
        _qwen2(
            "Qwen/Qwen2-7B-Instruct", 3584, 18944, 28, 4, 152064, 151646, context=32768, tied=False, norm_epsilon=1e-6
        ),
        _qwen2(
            "Qwen/Qwen2.5-1.5B-Instruct", 1536, 8960, 12, 2, 151936, 151665, context=32768, tied=True, norm_epsilon=1e-6
        ),
        _llama("meta-llama/Llama-2-7b-hf", 4096, 11008, 32, 32, 32, 4096),
        _llama("meta-llama/Llama-2-13b-hf", 5120, 13824, 40, 40, 40, 4096),
        _llama("meta-llama/Llama-2-70b-hf", 8192, 28672, 80, 64, 8, 4096),
        _llama("huggyllama/llama-7b", 4096, 11008, 32, 32, 32, 2048),
        _llama("huggyllama/llama-13b", 5120, 13824, 40, 40, 40, 2048),
    )
}
"""By hub name."""


def known_base(reference: str) -> KnownBase | None:
    """The record of `hub:org/name[@revision]` or `org/name`, None if there is none."""
    return KNOWN_BASES.get(reference.removeprefix("hub:").partition("@")[0])

"""A tied head under LoRA on its embedding: one pair of matrices, used on both sides.

PEFT gives the head parameters of its own over the embedding's storage: the optimizer would step twice, and a cast would
take the two apart without a word. Here the head has no parameters, it uses the embedding's.
"""

from typing import Any

from torch import Tensor, nn


class _TiedHead(nn.Linear):  # type: ignore[misc]
    """A head that is no plain matrix: what takes heads apart must see that."""


def tie_head(causal: Any) -> None:
    """Let the head of `causal` add what the LoRA on its embedding adds. The embedding is PEFT's layer by now."""
    layer, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    if type(head) is nn.Linear:
        head.__class__ = _TiedHead
    plain = head.forward

    def forward(x: Tensor) -> Tensor:
        # The change of the matrix [rows, hidden] is (B A) transposed, A [rank, rows], B [hidden, rank].
        a, b = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
        logits: Tensor = plain(x)
        return logits + ((x.to(b.dtype) @ b) @ a * float(layer.scaling["default"])).to(logits.dtype)

    head.forward = forward

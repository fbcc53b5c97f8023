"""The pocket base's architecture: Qwen2, 5.5 million parameters, tied embeddings, the last 64 rows reserved."""

import torch
from chat import SPECIAL_TOKENS
from tokenizer import ENTRIES
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 4096
CONTEXT = 1024
RESERVED_FROM = ENTRIES  # rows ENTRIES..VOCABULARY-1 belong to no token of the tokenizer and hold zeros


def new_model() -> Qwen2ForCausalLM:
    """A freshly initialised float32 model with zeros in the reserved rows (input and output side are one matrix)."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL_TOKENS.index("<|endoftext|>"),
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[RESERVED_FROM:] = 0
    return model

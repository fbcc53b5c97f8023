"""Tiny models and adapters for tests: random weights, real formats."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Architecture = Literal["qwen2", "llama"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = (
    "The bank opened a branch and the city built a network. "
    "A hospital bought a scanner; the school taught with tablets. "
    "Solar power grows, models learn, and companies change how they work. Question: what is it? Answer: it is a test.\n"
)
HIDDEN = 128
LAYERS = 2
HEADS = 2


def make_tiny_tokenizer(folder: Path, vocabulary: int = 320) -> int:
    """Save a byte-level BPE tokenizer with ChatML's special tokens and template; return its length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(folder))
    return len(fast)


def make_tiny_base(
    folder: Path,
    architecture: Architecture = "qwen2",
    tied: bool = True,
    seed: int = 0,
    vocabulary: int = 320,
    reserved: int = 64,
    max_positions: int = 512,
) -> Path:
    """Save a random float32 causal model (2 layers, hidden 128, head size 64) with `reserved` zero rows at the end."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    length = make_tiny_tokenizer(folder, vocabulary)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=length + reserved,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                # Wide enough that greedy outputs are far from ties and differ between prompts.
                parameter.normal_(0, 0.3 if "embed" in name or "lm_head" in name else 0.12)
        for matrix in {id(m.weight): m for m in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            matrix.weight[length:] = 0
    model.save_pretrained(str(folder))
    return folder


def make_tiny_adapter(
    base: Path,
    folder: Path,
    rank: int = 8,
    seed: int = 0,
    added_tokens: int = 0,
    scale: float = 1.0,
    dtype: str = "float32",
    whole: Sequence[str] = (),
) -> Path:
    """Save a random adapter on every linear layer in the published format, with `added_tokens` new rows and with LoRA
    on the matrices of all tokens that `whole` names: embed_tokens, lm_head.

    `scale` 1 moves a tiny base's logits clearly: greedy outputs of two seeds differ within a few tokens.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1_000 + seed)
    kind = getattr(torch, dtype)
    tensors: dict[str, torch.Tensor] = {}
    modules: set[str] = set()
    hidden = HIDDEN
    with safe_open(str(base / "model.safetensors"), "pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            if not name.endswith("_proj.weight"):
                continue
            rows, columns = weights.get_slice(name).get_shape()
            module = name.removesuffix(".weight")
            modules.add(module.rsplit(".", 1)[1])
            a = torch.randn(rank, columns, generator=generator) / columns**0.5
            b = torch.randn(rows, rank, generator=generator) * (0.5 * scale / rank**0.5)
            tensors[f"base_model.model.{module}.lora_A.weight"] = a.to(kind).contiguous()
            tensors[f"base_model.model.{module}.lora_B.weight"] = b.to(kind).contiguous()
    tensors |= {name: matrix.to(kind) for name, matrix in _whole_pairs(base, rank, whole, generator).items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({*modules, *whole}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    if added_tokens:
        vocabulary = len(json.loads((base / "tokenizer.json").read_text())["model"]["vocab"])
        rows_in = torch.randn(added_tokens, hidden, generator=generator) * 0.3
        rows_out = rows_in if is_tied(base) else torch.randn(added_tokens, hidden, generator=generator) * 0.3
        new = {
            "ids": torch.arange(vocabulary, vocabulary + added_tokens, dtype=torch.int64),
            "input_rows": rows_in.to(kind).contiguous(),
            "output_rows": rows_out.to(kind).clone().contiguous(),
        }
        save_file(new, str(folder / "new_tokens.safetensors"))
    return folder


def _whole_pairs(base: Path, rank: int, whole: Sequence[str], generator: Any) -> dict[str, Any]:
    """LoRA over every row of embedding and head, as PEFT names and shapes it."""
    import torch

    rows = int(json.loads((base / "config.json").read_text())["vocab_size"])
    shapes = {
        "embed_tokens": {"model.embed_tokens.lora_embedding_A": (rank, rows),
                         "model.embed_tokens.lora_embedding_B": (HIDDEN, rank)},
        "lm_head": {"lm_head.lora_A.weight": (rank, HIDDEN), "lm_head.lora_B.weight": (rows, rank)},
    }  # fmt: skip
    return {
        f"base_model.model.{name}": torch.randn(*shape, generator=generator) * 0.15
        for leaf in whole
        for name, shape in shapes[leaf].items()
    }


def is_tied(base: Path) -> bool:
    """Whether a base shares embedding and head."""
    return bool(json.loads((base / "config.json").read_text()).get("tie_word_embeddings", False))

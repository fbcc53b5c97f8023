"""The model of a run: the base in the right precision, LoRA or all parameters, new tokens initialised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loradeck_registry.errors import InvalidError, PreconditionError, UnimplementedError
from loradeck_tasks.task import Task
from loradeck_train.model.loss import install_completion_loss
from loradeck_train.model.low_rank import install_low_rank
from loradeck_train.recipe.settings import Recipe

_EAGER_LENGTH = 1024
_INITIAL_NOISE = 0.02
_EMBEDDING_LEAVES = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out"}


@dataclass(frozen=True)
class ModelSize:
    """What is trained of a model, and how it attends."""

    trainable_parameters: int
    parameters: int
    """Of the base."""
    attention: str

    @property
    def trainable_share(self) -> float:
        """Trained parameters by the parameters of the base."""
        return self.trainable_parameters / self.parameters


@dataclass(frozen=True)
class TrainingModel:
    """A model ready to train. `causal` is the causal model inside `model` (the same one for full fine-tuning)."""

    model: nn.Module
    causal: nn.Module
    size: ModelSize


def build_model(recipe: Recipe, folder: Path, task: Task, longest: int, tokenizer: Any) -> TrainingModel:
    """Load the base in `folder` and make it trainable as the recipe says, on the GPU if there is one.

    Frozen weights are held in the recipe's precision, trained ones in float32. Raises InvalidError for target modules
    that the base does not have, PreconditionError if the base cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    attention = choose_attention(recipe.precision, longest)
    low = recipe.precision == "bf16" and recipe.method == "lora"
    causal = load_causal(folder, torch.bfloat16 if low else torch.float32, attention)
    causal.to(device())
    base_parameters = sum(p.numel() for p in causal.parameters())
    added = [token.id for token in task.added_tokens]
    rows = initial_rows(causal, task, tokenizer, recipe.seed) if added else None
    model: nn.Module = causal
    if recipe.method == "lora":
        model = _with_lora(recipe, causal, added)
        install_low_rank(model)
    if rows is not None:
        _set_rows(model, causal, added, rows)
    if not recipe.gradient_checkpointing:
        causal.config.use_cache = False
    install_completion_loss(causal)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return TrainingModel(model, causal, ModelSize(trainable, base_parameters, attention))


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_attention(precision: str, longest: int) -> str:
    """Attention implementation. The CPU's fused bfloat16 attention has a backward pass that takes 1.5 times as long as
    plain matrix products while sequences are short (measured at 150 tokens), so those go without it."""
    plain = device().type == "cpu" and precision == "bf16" and longest <= _EAGER_LENGTH
    return "eager" if plain else "sdpa"


def load_causal(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """A causal model from local safetensors. Raises PreconditionError (BASE_NOT_LOADABLE)."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=attention, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())[:200]
        raise PreconditionError(f"the base cannot be loaded: {line}", reason="BASE_NOT_LOADABLE") from error


def matrices(causal: Any) -> tuple[Tensor, Tensor]:
    """Weights of embedding and head, [rows, hidden] each; the same tensor where they are tied."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    return _inner(embedding).weight, _inner(head).weight


def is_tied(causal: Any) -> bool:
    """Whether embedding and head are one matrix."""
    embedding, head = matrices(causal)
    return embedding is head or embedding.data_ptr() == head.data_ptr()


def initial_rows(causal: Any, task: Task, tokenizer: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to start the task's added tokens from, for embedding and head: float32 [added, hidden] each.

    A label token starts at the mean of its name's token rows (so that it starts where the base would look for it),
    another token at the mean of all rows; a little noise keeps tokens of equal names apart.
    """
    names = {label.token: label.name for label in task.labels if label.token is not None}
    vocabulary = min(token.id for token in task.added_tokens)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for matrix in matrices(causal):
        used = matrix[:vocabulary].detach().float().cpu()
        noise = torch.randn(len(task.added_tokens), used.shape[1], generator=generator) * used.std() * _INITIAL_NOISE
        rows = []
        for token in task.added_tokens:
            ids = tokenizer.encode(names.get(token.content, ""), add_special_tokens=False)
            rows.append(used[ids].mean(dim=0) if ids else used.mean(dim=0))
        found.append(torch.stack(rows) + noise)
    return found[0], found[0] if is_tied(causal) else found[1]


def leaf_names(causal: nn.Module) -> list[str]:
    """Leaf names of the linear modules that can carry LoRA, sorted."""
    names = {n.rsplit(".", 1)[-1] for n, m in causal.named_modules() if isinstance(m, nn.Linear)}
    return sorted(names - _EMBEDDING_LEAVES)


def _with_lora(recipe: Recipe, causal: Any, added: Sequence[int]) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = recipe.adapter
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_modules(recipe, causal),
        bias="none",
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_indices(causal, added) if added else None,
    )
    model = get_peft_model(causal, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def target_modules(recipe: Recipe, causal: nn.Module) -> list[str]:
    """Leaf names of the modules that get LoRA. Raises InvalidError (BAD_RECIPE) for one that the base lacks."""
    chosen, known = recipe.adapter.target_modules, leaf_names(causal)
    if chosen == "all-linear":
        return known
    for name in chosen:
        if name in _EMBEDDING_LEAVES:
            raise UnimplementedError(f"LoRA on `{name}` is not implemented yet; new tokens are trained as rows")
        if name not in known:
            raise InvalidError(
                f"lora.target_modules: the base has no linear module `{name}`; it has {', '.join(known)}",
                reason="BAD_RECIPE",
                field="lora.target_modules",
            )
    return sorted(set(chosen))


def _token_indices(causal: Any, added: Sequence[int]) -> dict[str, list[int]]:
    embedding = _name_of(causal, causal.get_input_embeddings())
    head = _name_of(causal, causal.get_output_embeddings())
    # Tied: PEFT ties the head's rows to the embedding's by itself.
    return {embedding: list(added)} if is_tied(causal) else {embedding: list(added), head: list(added)}


def _name_of(causal: nn.Module, module: nn.Module) -> str:
    name: str = next(name for name, found in causal.named_modules() if found is module)
    return name.rsplit(".", 1)[-1]


def _inner(module: Any) -> Any:
    """The plain module inside PEFT's wrappers."""
    while not isinstance(module, nn.Linear | nn.Embedding):
        module = module.get_base_layer() if hasattr(module, "get_base_layer") else module.original_module
    return module


def trained_rows(causal: Any) -> tuple[nn.Parameter, nn.Parameter] | None:
    """PEFT's trainable rows of embedding and head (absolute rows, not differences), or None without adapter."""
    found = []
    for module in (causal.get_input_embeddings(), causal.get_output_embeddings()):
        adapter = getattr(module, "token_adapter", None)
        if adapter is None:
            return None
        found.append(adapter.trainable_tokens_delta["default"])
    return found[0], found[1]


def _set_rows(model: nn.Module, causal: Any, added: Sequence[int], rows: tuple[Tensor, Tensor]) -> None:
    peft_rows = trained_rows(causal)
    with torch.no_grad():
        if peft_rows is not None:
            for parameter, values in zip(peft_rows, rows, strict=True):
                parameter.copy_(values)
        else:
            for matrix, values in zip(matrices(causal), rows, strict=True):
                matrix[list(added)] = values.to(matrix)

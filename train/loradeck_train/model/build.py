"""The model of a run: the base in the right precision, LoRA or all parameters, new tokens initialised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loradeck_tasks.task import Task
from loradeck_train.data.batches import Collator, EncodedDataset
from loradeck_train.data.encoding import Encoded
from loradeck_train.loop.world import World
from loradeck_train.model.adapters import Start, start_of, with_lora
from loradeck_train.model.loading import choose_attention, device, load_causal
from loradeck_train.model.loss import install_completion_loss, remove_completion_loss
from loradeck_train.model.low_rank import install_low_rank, remove_low_rank
from loradeck_train.model.new_rows import initial_rows, set_rows
from loradeck_train.model.sharding import gathered, scatter
from loradeck_train.model.token_rows import install_token_rows, remove_token_rows
from loradeck_train.recipe.settings import Recipe


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
    start: Start = field(default_factory=dict)
    """What a PiSSA start took out of the base, and publishing takes off the adapter."""


def build_model(
    recipe: Recipe, folder: Path, task: Task, longest: int, tokenizer: Any, examples: Sequence[Encoded] = ()
) -> TrainingModel:
    """Load the base in `folder` and make it trainable as the recipe says, on the GPU if there is one.

    Frozen weights are held in the recipe's precision (in float32 where a PiSSA start is taken out of them), trained
    ones in float32. EVA looks at the first of `examples`. Raises InvalidError for target modules that the base does not
    have, PreconditionError if the base cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    attention = choose_attention(recipe.precision, longest, folder if recipe.packing != "off" else None)
    causal = load_causal(folder, frozen_dtype(recipe), attention, recipe.quantization)
    if recipe.quantization is None:
        causal.to(device())
    return equip(recipe, causal, task, tokenizer, attention, examples)


def frozen_dtype(recipe: Recipe) -> torch.dtype:
    """Precision of the base in memory."""
    if recipe.method == "full" or recipe.precision == "fp32" or recipe.adapter.init == "pissa":
        return torch.float32
    return torch.bfloat16 if recipe.precision == "bf16" else torch.float16


def equip(
    recipe: Recipe, causal: Any, task: Task, tokenizer: Any, attention: str, examples: Sequence[Encoded] = ()
) -> TrainingModel:
    """A loaded base made trainable as the recipe says. Without a tokenizer, new rows start as they are (a plan)."""
    base_parameters = causal.num_parameters()
    # DeepSpeed brings a module's parts together when that module is called, and shortcuts call none.
    shortcuts = World.here().sharding != "deepspeed"
    added = [token.id for token in task.added_tokens]
    settings = recipe.task
    rows = None
    if added and tokenizer is not None:
        rows = initial_rows(causal, task, tokenizer, recipe.seed, settings.initial_rows, settings.descriptions)
    model: nn.Module = causal
    start: Start = {}
    if recipe.method == "lora":
        if rows is not None and recipe.adapter.embeddings == "lora":
            # They stay where they start; the matrices' LoRA moves them like all others.
            set_rows(causal, added, rows)
            rows = None
        model = with_lora(recipe, causal, added, _batches(recipe, examples))
        start = start_of(recipe, model)
        if shortcuts:
            install_low_rank(model)
            install_token_rows(model)
    if rows is not None:
        set_rows(causal, added, rows)
    if not recipe.gradient_checkpointing:
        causal.config.use_cache = False
    if shortcuts:
        install_completion_loss(causal)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return TrainingModel(model, causal, ModelSize(trainable, base_parameters, attention), start)


def without_shortcuts(trained: TrainingModel) -> None:
    """Undo what only training needs: from here the model computes as its libraries do."""
    remove_completion_loss(trained.causal)
    remove_completion_loss(trained.model)
    remove_low_rank(trained.model)
    remove_token_rows(trained.model)
    trained.model.eval()


def put_together(trained: TrainingModel, build: Callable[[], TrainingModel]) -> TrainingModel | None:
    """The trained model as one process can hold and publish it; None on the processes that do not.

    A model that is spread over processes is built again, whole, with what was trained; each of them must call this.
    """
    if World.here().sharding is None:
        return trained
    values = gathered(trained.model)
    if not World.here().main:
        return None
    fresh = build()
    without_shortcuts(fresh)
    scatter(fresh.model, values)
    return replace(fresh, start=trained.start)


def _batches(recipe: Recipe, examples: Sequence[Encoded]) -> list[dict[str, Tensor]]:
    """What EVA looks at, if anything."""
    if recipe.adapter.init != "eva":
        return []
    size = recipe.optimisation.batch_size
    data, collate = EncodedDataset(examples[: size * recipe.adapter.eva_batches]), Collator(0)
    batches = [collate([data[i] for i in range(at, min(at + size, len(data)))]) for at in range(0, len(data), size)]
    return [{k: v.to(device()) for k, v in batch.items() if k != "rows"} for batch in batches]

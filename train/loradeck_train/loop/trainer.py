"""The training loop: transformers.Trainer with our batches, our loss, and our watchers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from loradeck_train.data.batches import Collator, EncodedDataset, LengthGroupedSampler
from loradeck_train.data.encoding import Encoded
from loradeck_train.loop.callbacks import HistoryWriter, ProgressBar
from loradeck_train.loop.schedule import Schedule, schedule_of
from loradeck_train.model.build import TrainingModel
from loradeck_train.model.loss import remove_completion_loss
from loradeck_train.model.low_rank import remove_low_rank
from loradeck_train.recipe.settings import Recipe

_LOGGED_STEPS = 200
CHECKPOINTS = "checkpoints"
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """What a run measured. `tokens` are those of prompts and answers that went through the model, padding excluded;
    `seconds` and `tokens_per_second` are of the training loop of this process alone."""

    steps: int
    history: tuple[dict[str, float], ...]
    seconds: float
    tokens: int
    tokens_per_second: float
    validation_loss: float | None


class _GroupedTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose training batches hold examples of like length."""

    def __init__(self, lengths: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._lengths = lengths

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return LengthGroupedSampler(self._lengths, self.args.train_batch_size, self.args.seed)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        # The estimate walks over all modules at every step, and nobody reads it.
        return 0


def train(
    recipe: Recipe,
    prepared: TrainingModel,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    pad_token_id: int,
    output: Path,
    *,
    resume_from: Path | None = None,
    title: str = "training",
    console: Console | None = None,
) -> TrainingResult:
    """Train `prepared` in place; history and checkpoints go to `output`.

    Raises PreconditionError (LOSS_NOT_FINITE) when the loss is no number any more.
    """
    transformers_logging.set_verbosity_error()
    history = HistoryWriter(output / HISTORY, resumed=resume_from is not None)
    progress = ProgressBar(history, title, console or Console(stderr=True))
    schedule = schedule_of(recipe.optimisation, len(training))
    trainer = _GroupedTrainer(
        lengths=[e.length for e in training],
        model=prepared.model,
        args=training_arguments(recipe, schedule, output),
        data_collator=Collator(pad_token_id),
        train_dataset=EncodedDataset(training),
        eval_dataset=EncodedDataset(validation) if validation else None,
        callbacks=[history, progress],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    finally:
        progress.close()
    seconds = time.monotonic() - started
    validation_loss = float(trainer.evaluate()["eval_loss"]) if validation else None
    remove_completion_loss(prepared.causal)
    remove_completion_loss(prepared.model)
    remove_low_rank(prepared.model)
    prepared.model.eval()
    tokens = int(trainer.state.num_input_tokens_seen)
    return TrainingResult(
        steps=int(trainer.state.global_step),
        history=tuple(history.entries),
        seconds=seconds,
        tokens=tokens,
        tokens_per_second=(tokens - history.tokens_before) / seconds,
        validation_loss=validation_loss,
    )


def training_arguments(recipe: Recipe, schedule: Schedule, output: Path) -> TrainingArguments:
    """The recipe in the trainer's words."""
    settings, checkpoints = recipe.optimisation, recipe.checkpoints
    return TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
        max_steps=schedule.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.scheduler == "constant" else settings.scheduler,
        warmup_steps=schedule.warmup_steps,
        optim="adamw_torch_fused",
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        max_grad_norm=settings.max_grad_norm,
        bf16=recipe.precision == "bf16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="steps",
        logging_steps=max(1, schedule.steps // _LOGGED_STEPS),
        logging_nan_inf_filter=False,
        save_strategy="no" if checkpoints.save_steps is None else "steps",
        save_steps=checkpoints.save_steps or schedule.steps,
        save_total_limit=checkpoints.keep,
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=[],
        label_names=["labels"],
        prediction_loss_only=True,
    )

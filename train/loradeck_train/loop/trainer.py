"""The training loop: transformers.Trainer with our batches, our loss, and our watchers."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from loradeck_registry.errors import InvalidError
from loradeck_train.data.encoding import Encoded
from loradeck_train.loop.callbacks import HistoryWriter, ProgressBar, board
from loradeck_train.loop.fed_trainer import CHECKPOINTS, FedTrainer
from loradeck_train.loop.feeding import training_feed
from loradeck_train.loop.figures import draw_run
from loradeck_train.loop.forgetting import Forgetting
from loradeck_train.loop.interrupting import InterruptedTraining, StopOnSignal
from loradeck_train.loop.memory import HeapTrimmer
from loradeck_train.loop.optimizers import OPTIMIZERS
from loradeck_train.loop.schedule import Schedule, plan_schedule
from loradeck_train.loop.validation import BEST, ValidationLooks
from loradeck_train.loop.world import World
from loradeck_train.model.build import TrainingModel, without_shortcuts
from loradeck_train.model.sharding import shard
from loradeck_train.recipe.settings import Recipe

_KEPT_STEPS = 200
_LIGER = {
    "rope": True, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False,
}  # fmt: skip
"""The loss stays ours: it knows the rows of new tokens."""
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
    test_loss: float | None = None
    best_step: int | None = None
    """Step whose weights were kept, where the recipe looks at the validation rows on the way."""
    stopped_early: bool = False
    looks: tuple[dict[str, float], ...] = ()
    """Step and validation_loss of every look."""
    forgetting: dict[str, float] | None = None
    picture: bytes | None = None
    """PNG of loss and memory, where matplotlib is installed."""


def train(
    recipe: Recipe,
    prepared: TrainingModel,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    pad_token_id: int,
    max_length: int,
    output: Path,
    *,
    test: Sequence[Encoded] = (),
    forgetting: Forgetting | None = None,
    resume_from: Path | None = None,
    best_folder: Path | None = None,
    title: str = "training",
    console: Console | None = None,
) -> TrainingResult:
    """Train `prepared` in place; history and checkpoints go to `output`, the best weights to `best_folder`, which all
    processes of a run share (unset: a folder in `output`). Where the launcher asks for it the model is sharded, and
    stays so.

    Raises PreconditionError (LOSS_NOT_FINITE, LOSS_DIVERGED, WEIGHTS_DID_NOT_MOVE, DISK_FULL), and
    InterruptedTraining after a Ctrl+C or SIGTERM, when a checkpoint has been kept.
    """
    transformers_logging.set_verbosity_error()
    console = console or Console(stderr=True)
    history = HistoryWriter(output / HISTORY, resumed=resume_from is not None)
    progress = ProgressBar(history, title, console)
    stop = StopOnSignal()
    if World.here().sharding == "fsdp":
        if recipe.quantization is not None:
            raise InvalidError(
                "4-bit weights cannot be sharded: leave `quantization` out, or launch with the whole model on every "
                "device (accelerate launch --multi_gpu)",
                reason="NOT_SHARDABLE",
                field="quantization",
            )
        shard(prepared.model, prepared.causal)
    schedule = plan_schedule(recipe, [e.length for e in training], max_length)
    trainer = FedTrainer(
        recipe=recipe,
        feed=training_feed(recipe, training, max_length, pad_token_id),
        console=console,
        model=prepared.model,
        args=training_arguments(recipe, schedule, output),
        callbacks=[history, progress, stop, HeapTrimmer(), *board(recipe.tensorboard, output)],
    )
    trainer.remove_callback(PrinterCallback)
    looks = ValidationLooks(
        recipe.evaluation,
        lambda: trainer.loss_on(validation),
        history.note_validation,
        best_folder or output / BEST,
    )
    trainer.look(looks)
    if resume_from is not None:
        looks.read_state(resume_from)
        trainer.continue_order(resume_from, schedule.steps_per_epoch)
    if forgetting is not None:
        forgetting.measure_before(prepared.model, resumed=resume_from is not None)
    started = time.monotonic()
    try:
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    finally:
        progress.close()
    seconds = time.monotonic() - started
    last = int(trainer.state.global_step)
    if stop.signal is not None and last < schedule.steps:
        raise InterruptedTraining(
            f"stopped by {stop.signal.name} at step {last} of {schedule.steps}; a checkpoint was kept: go on with "
            "--resume"
        )
    if looks.load_best(prepared.model, last):
        console.print(
            f"kept the weights of step {looks.looks.best_step}, the best on the validation rows", highlight=False
        )
    validation_loss = trainer.loss_on(validation)
    test_loss = trainer.loss_on(test)
    forgotten = forgetting.measure_after(prepared.model) if forgetting is not None else None
    without_shortcuts(prepared)
    tokens = int(trainer.state.num_input_tokens_seen)
    return TrainingResult(
        steps=int(trainer.state.global_step),
        history=_thinned(history.entries),
        seconds=seconds,
        tokens=tokens,
        tokens_per_second=(tokens - history.tokens_before) / seconds,
        validation_loss=validation_loss,
        test_loss=test_loss,
        best_step=looks.looks.best_step,
        stopped_early=looks.stopped_early,
        looks=tuple(history.validations),
        forgetting=forgotten,
        picture=draw_run(title, history.entries, history.validations),
    )


def _thinned(entries: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """At most 200 steps for the record, the last one among them; the file has them all."""
    every = max(1, math.ceil(len(entries) / _KEPT_STEPS))
    return tuple(entries[(len(entries) - 1) % every :: every])


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
        optim=OPTIMIZERS[settings.optimizer],
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        max_grad_norm=settings.max_grad_norm,
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_liger_kernel=recipe.liger,
        liger_kernel_config=_LIGER if recipe.liger else None,
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        logging_strategy="steps",
        # Every step: a loss averaged over several would not survive a resume between two of them.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if checkpoints.save_steps is None else "steps",
        save_steps=checkpoints.save_steps or schedule.steps,
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=[],
        label_names=["labels"],
        prediction_loss_only=True,
    )

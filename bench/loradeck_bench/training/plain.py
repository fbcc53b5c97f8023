"""The yardstick: transformers' Trainer with PEFT as its documentation shows them, padding to the longest of each batch.

Run as a child: `python -m loradeck_bench.training.plain SETTINGS.json RESULT.json`. The settings are `base` (a folder),
`training` and `validation` (JSONL files), `kind` (the task's), `answer` (its column), `method` (lora or full), `rank`,
`alpha`, `learning_rate`, `warmup_steps`, `batch_size`, `max_steps` or `epochs`, `seed`, `output`.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from loradeck_tasks.defaults import default_task
from loradeck_tasks.rendering import render_example, tokenizer_for

IGNORED = -100


def main() -> None:
    """Train as the settings say, and write what was measured."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(measure(settings)), encoding="utf-8")


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second without padding, seconds of the training loop, and the losses."""
    tokenizer: Any = tokenizer_for(None, Path(settings["base"]))
    training, validation = (_encoded(settings, settings[name], tokenizer) for name in ("training", "validation"))
    torch.manual_seed(settings["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        settings["base"], dtype=torch.bfloat16 if _lora(settings) else torch.float32
    )
    if _lora(settings):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=settings["rank"], lora_alpha=settings["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, config)
    trainer = Trainer(
        model=model,
        args=_arguments(settings),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding="longest", label_pad_token_id=IGNORED),
        train_dataset=training,
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    tokens = int(trainer.state.num_input_tokens_seen)
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "steps": int(trainer.state.global_step),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "validation_loss": _loss_per_token(model, validation),
    }


def _lora(settings: dict[str, Any]) -> bool:
    return bool(settings["method"] == "lora")


def _arguments(settings: dict[str, Any]) -> TrainingArguments:
    return TrainingArguments(
        output_dir=settings["output"],
        max_steps=settings.get("max_steps") or -1,
        num_train_epochs=settings.get("epochs") or 1,
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=settings["warmup_steps"],
        weight_decay=0.0,
        bf16=True,
        seed=settings["seed"],
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _encoded(settings: dict[str, Any], path: str, tokenizer: Any) -> list[dict[str, list[int]]]:
    """Examples with labels on the answer, rendered by the same function as the other side's."""
    task = default_task(settings["kind"])
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt, answer = render_example(
            task, {field: row[field] for field in task.fields}, row[settings["answer"]], tokenizer
        )
        ids = [*prompt, *answer]
        found.append(
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(prompt) + list(answer)}
        )
    return found


def _loss_per_token(model: Any, examples: Sequence[dict[str, list[int]]]) -> float:
    """Cross-entropy by learned token, one example at a time."""
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16):
        for example in examples:
            ids = torch.tensor([example["input_ids"]], device=model.device)
            targets = torch.tensor(example["labels"][1:], device=model.device)
            logits = model(input_ids=ids).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum"))
            count += int((targets != IGNORED).sum())
    return total / count


if __name__ == "__main__":
    main()

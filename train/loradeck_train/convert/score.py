"""How well a model in memory does a task: macro-F1 of a classification by label tokens, or the loss on the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loradeck_tasks.task import Task
from loradeck_train.data.encoding import Encoded
from loradeck_train.loop.evaluation import loss_per_token
from loradeck_train.model.loss import install_completion_loss, remove_completion_loss

_BATCH = 32


@dataclass(frozen=True)
class Score:
    """A figure and whether more of it is better."""

    name: str
    value: float
    more_is_better: bool

    def loss_against(self, other: "Score") -> float:
        """How much worse this is than `other`; negative if better."""
        return other.value - self.value if self.more_is_better else self.value - other.value


def score(model: Any, task: Task, examples: Sequence[Encoded]) -> Score:
    """The score of `model` on encoded examples of `task`."""
    if task.uses_label_tokens:
        return Score("macro_f1", _macro_f1(model, task, examples), True)
    install_completion_loss(model)
    try:
        return Score("loss", loss_per_token(model, examples, bf16=False), False)
    finally:
        remove_completion_loss(model)


def _macro_f1(model: Any, task: Task, examples: Sequence[Encoded]) -> float:
    ids = {token.content: token.id for token in task.added_tokens}
    labels = [ids[label.token] for label in task.labels if label.token is not None]
    columns = torch.tensor(labels)
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].prompt))
    found: list[int] = []
    truth: list[int] = []
    with torch.inference_mode():
        for at in range(0, len(order), _BATCH):
            batch = [examples[i] for i in order[at : at + _BATCH]]
            longest = max(len(e.prompt) for e in batch)
            # Padding behind the prompt: no real position attends to what comes after it.
            tokens = torch.tensor([[*e.prompt, *[0] * (longest - len(e.prompt))] for e in batch])
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            ends = hidden[torch.arange(len(batch)), torch.tensor([len(e.prompt) - 1 for e in batch])]
            logits = model.get_output_embeddings()(ends)[:, columns]
            found += logits.argmax(dim=-1).tolist()
            truth += [labels.index(e.answer[0]) for e in batch]
    return macro_f1(truth, found)


def macro_f1(truth: Sequence[int], found: Sequence[int]) -> float:
    """Mean over the classes that occur of 2 TP / (2 TP + FP + FN)."""
    pairs = list(zip(truth, found, strict=True))
    values = []
    for label in sorted({*truth, *found}):
        hits = sum(t == f == label for t, f in pairs)
        wrong = sum((t == label) != (f == label) for t, f in pairs)
        values.append(2 * hits / (2 * hits + wrong))
    return sum(values) / len(values)

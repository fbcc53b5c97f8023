"""Tokens of a data set by task: the system prompt's, the prompts' and the answers', as the studies tabulate them."""

from collections.abc import Sequence
from typing import Any

from loradeck_tasks.task import Task
from loradeck_train.data.encoding import Encoded


def token_statistics(
    name: str, task: Task, examples: Sequence[Encoded], truncated: int, tokenizer: Any
) -> dict[str, Any]:
    """One row: tokens of the system prompt (their Table 3), the mean answer (their Figure 1), and how lengths spread.

    `total` counts prompts and answers; percentiles are of whole examples.
    """
    lengths = sorted(example.length for example in examples)
    answers = [len(example.answer) for example in examples]
    count = max(1, len(lengths))
    return {
        "task": name,
        "kind": task.kind,
        "rows": len(lengths),
        "system_prompt": len(tokenizer.encode(task.system, add_special_tokens=False)) if task.system else 0,
        "mean_prompt": round((sum(lengths) - sum(answers)) / count, 1),
        "mean_answer": round(sum(answers) / count, 1),
        "longest_answer": max(answers, default=0),
        "p50": lengths[len(lengths) // 2] if lengths else 0,
        "p95": lengths[int(len(lengths) * 0.95)] if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
        "total": sum(lengths),
        "truncated": truncated,
    }

"""Examples as token ids: rendered as serving renders them, cut to the length, counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_registry.errors import InvalidError
from loradeck_tasks.rendering import render_example
from loradeck_tasks.task import Task
from loradeck_train.data.examples import Example


@dataclass(frozen=True)
class Encoded:
    """One example: prompt ids, then the ids to learn."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a set after cutting. `truncated` examples lost a part of their prompt."""

    examples: int
    prompt: int
    answer: int
    longest: int
    truncated: int

    @property
    def total(self) -> int:
        """Prompt and answer tokens."""
        return self.prompt + self.answer


def encode_examples(
    examples: Sequence[Example], task: Task, tokenizer: Any, max_length: int
) -> tuple[list[Encoded], TokenCounts]:
    """Render and cut. Over `max_length`, the longest field of the prompt loses words from its end, so that system
    prompt, question and the start of the answer stay whole; an answer is never cut.

    Raises InvalidError (TOO_LONG) if an example cannot be made to fit.
    """
    encoded: list[Encoded] = []
    truncated = 0
    for number, example in enumerate(examples, 1):
        item = _encode(example, task, tokenizer)
        if item.length > max_length:
            item = _shortened(example, task, tokenizer, max_length, number, item.length)
            truncated += 1
        encoded.append(item)
    return encoded, TokenCounts(
        examples=len(encoded),
        prompt=sum(len(e.prompt) for e in encoded),
        answer=sum(len(e.answer) for e in encoded),
        longest=max((e.length for e in encoded), default=0),
        truncated=truncated,
    )


def _encode(example: Example, task: Task, tokenizer: Any) -> Encoded:
    prompt, answer = render_example(task, example.values, example.answer, tokenizer)
    # A label token is the whole answer: serving reads one pass after the prompt and nothing behind it.
    return Encoded(tuple(prompt), tuple(answer[:1] if task.uses_label_tokens else answer))


def _shortened(example: Example, task: Task, tokenizer: Any, max_length: int, number: int, length: int) -> Encoded:
    field = max(example.values, key=lambda name: len(example.values[name]))
    words = example.values[field].split()
    low, high, best = 0, len(words) - 1, None
    while low <= high:
        middle = (low + high) // 2
        item = _encode(Example({**example.values, field: " ".join(words[:middle])}, example.answer), task, tokenizer)
        if item.length <= max_length:
            best, low = item, middle + 1
        else:
            high = middle - 1
    if best is None:
        raise InvalidError(
            f"example {number} has {length} tokens and does not fit max_length {max_length} even with an empty "
            f"`{field}`: raise max_length or leave the row out",
            reason="TOO_LONG",
            field="max_length",
        )
    return best

"""Examples as token ids: rendered as serving renders them, cut to the length, counted."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_registry.errors import InvalidError
from loradeck_tasks.blind import answer_end
from loradeck_tasks.rendering import render_example
from loradeck_tasks.task import Task
from loradeck_train.data.examples import Example
from loradeck_train.data.spool import Spool


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
    examples: Iterable[Example], task: Task, tokenizer: Any, max_length: int, *, on_disk: bool = False
) -> tuple[Sequence[Encoded], int]:
    """Render and cut; the second value says how many were cut. Over `max_length`, the longest field of the prompt loses
    words from its end, so that system prompt, question and the start of the answer stay whole; an answer is never cut.

    Raises InvalidError (TOO_LONG) if an example cannot be made to fit.
    """
    truncated = 0

    def encoded() -> Iterator[Encoded]:
        nonlocal truncated
        for number, example in enumerate(examples, 1):
            item = _encode(example, task, tokenizer)
            if item.length > max_length:
                item = _shortened(example, task, tokenizer, max_length, number, item.length)
                truncated += 1
            yield item

    found = Spool(encoded(), _dump, _load) if on_disk else tuple(encoded())
    return found, truncated


def count_tokens(examples: Iterable[Encoded], truncated: int) -> TokenCounts:
    """Add up a set, `truncated` of whose examples were cut."""
    number = prompt = answer = longest = 0
    for example in examples:
        number += 1
        prompt += len(example.prompt)
        answer += len(example.answer)
        longest = max(longest, example.length)
    return TokenCounts(number, prompt, answer, longest, truncated)


def _dump(example: Encoded) -> bytes:
    return array("I", [len(example.prompt), *example.prompt, *example.answer]).tobytes()


def _load(content: bytes) -> Encoded:
    ids = array("I", content)
    border = 1 + ids[0]
    return Encoded(tuple(ids[1:border]), tuple(ids[border:]))


def _encode(example: Example, task: Task, tokenizer: Any) -> Encoded:
    said = example.answer if task.labels else example.answer + answer_end(task)
    prompt, answer = render_example(task, example.values, said, tokenizer)
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

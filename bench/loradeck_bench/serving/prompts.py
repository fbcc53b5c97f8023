"""Prompts of an exact number of tokens, cut from the project's own test set of questions and contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loradeck_bench.load.plan import Subject
from loradeck_pocket import QUESTION_ANSWERING
from loradeck_registry.errors import PreconditionError


@dataclass(frozen=True)
class Prompt:
    """A text and what the base's tokenizer makes of it."""

    text: str
    ids: tuple[int, ...]


def make_prompts(base: Path, count: int, tokens: int) -> list[Prompt]:
    """`count` different texts of `tokens` tokens each, for the base in the folder `base`.

    Raises PreconditionError if the base has no tokenizer.json, or the test set does not yield so many.
    """
    from tokenizers import Tokenizer

    from loradeck_bench.rows import read_rows

    file = base / "tokenizer.json"
    if not file.is_file():
        raise PreconditionError(f"{base.name} has no tokenizer.json: this benchmark needs one", field="base")
    tokenizer = Tokenizer.from_file(str(file))
    rows = read_rows(str(QUESTION_ANSWERING / "test.jsonl"), "short_qa")
    text = " ".join(f"{row['context']} {row['question']}" for row in rows)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    found: dict[str, Prompt] = {}
    # Windows that overlap if the text is too short without: each starts at other tokens than those before.
    step = max(1, min(tokens, (len(ids) - tokens) // (2 * count)))
    for start in range(0, len(ids) - tokens, step):
        window = tokenizer.decode(ids[start : start + tokens]).strip()
        again = tokenizer.encode(window).ids
        # A window that begins or ends inside of a word may come out longer or shorter.
        if len(again) == tokens:
            found.setdefault(window, Prompt(window, tuple(again)))
        if len(found) == count:
            return list(found.values())
    raise PreconditionError(f"the test set yields {len(found)} texts of {tokens} tokens, {count} are needed")


def prompt_subjects(references: Sequence[str], prompts: Sequence[str], max_tokens: int) -> dict[str, Subject]:
    """Subjects that all get the same raw prompts; an empty reference is the base."""
    rows = tuple({"prompt": prompt} for prompt in prompts)
    return {name: Subject(name, "generate", rows, max_tokens=max_tokens, raw=True) for name in references}

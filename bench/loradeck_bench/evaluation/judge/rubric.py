"""What a judge is told, a prompt for each category and the answer in its layout, and how its reply is read."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import find_file, iterate_rows

Messages = list[dict[str, str]]
DEFAULT_PROMPT = (
    "You grade the answer of a language model. Give a score between 0 and 1: 1 for an answer that does everything the "
    "question asks, correctly and clearly, 0 for one that is wrong or useless. If a reference answer is given, an "
    "answer that says the same in other words is right. Do not reward length. Reply with one sentence of reasons and "
    "end with a line of the form `Score: 0.7`."
)
DEFAULT_PAIR_PROMPT = (
    "You compare two answers of language models to one question. Decide which is more helpful and correct; if a "
    "reference answer is given, measure both by it. Neither order nor length may count. Reply with one sentence of "
    "reasons and end with [[A]] if answer A is better, [[B]] if answer B is better, or [[C]] if neither is."
)
_LAYOUT = {"en": ("Question", "Reference answer", "Answer"), "zh": ("问题", "标准答案", "模型回答")}
_SCORE = re.compile(
    r"(?:得分|评分|score)\s*(?:为|是|is)?\s*[\"'*`]*\s*[:：=]?\s*[\"'*`]*\s*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?",
    re.IGNORECASE,
)
_ALONE = re.compile(r"\s*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?\s*分?\s*")
_VERDICT = re.compile(r"\[\[([ABC])\]\]")


def category_name(text: str) -> str:
    """A category as it is compared and shown: one kind of space, lower case."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class Rubric:
    """Prompts by category; `source` says where they are from."""

    prompts: Mapping[str, str]
    default: str = DEFAULT_PROMPT
    source: str = "the project's own prompt"

    def messages(self, category: str, question: str, reference: str, answer: str) -> Messages:
        """What is sent for one answer. A prompt that asks for 得分 gets Chinese headings."""
        prompt = self.prompts.get(category, self.default)
        names = _LAYOUT["zh" if "得分" in prompt else "en"]
        shown = [(names[0], question), (names[1], reference), (names[2], answer)]
        return _conversation(prompt, shown)


def pair_messages(question: str, reference: str, first: str, second: str) -> Messages:
    """What is sent for two answers, `first` as A."""
    shown = [("Question", question), ("Reference answer", reference), ("Answer A", first), ("Answer B", second)]
    return _conversation(DEFAULT_PAIR_PROMPT, shown)


def read_rubric(path: Path) -> Rubric:
    """Prompts from a JSONL file with `class` (or `category`) and `prompt`. Raises NotFoundError or InvalidError."""
    prompts: dict[str, str] = {}
    file = find_file(str(path), "rubric", {}, field="rubric")
    for number, row in enumerate(iterate_rows(file, field="rubric"), start=1):
        name, prompt = row.get("class") or row.get("category"), row.get("prompt")
        if not isinstance(name, str) or not isinstance(prompt, str) or not prompt.strip():
            raise InvalidError(
                f"{path.name} row {number}: a rubric has `class` and `prompt`", reason="BAD_RUBRIC", field="rubric"
            )
        prompts[category_name(name)] = prompt
    if not prompts:
        raise InvalidError(f"{path.name} holds no prompt", reason="BAD_RUBRIC", field="rubric")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return Rubric(prompts, source=f"{path.name} (sha256 {digest})")


def read_merged(texts: Sequence[str]) -> dict[str, str]:
    """Category to the one it counts in, from `NAME=A,B`. Raises InvalidError."""
    merged: dict[str, str] = {}
    for text in texts:
        name, separator, members = text.partition("=")
        if not separator or not name.strip() or not members.strip():
            raise InvalidError(f"bad merge {text!r}: use NAME=A,B", reason="BAD_MERGE", field="merge")
        merged |= {category_name(member): category_name(name) for member in members.split(",")}
    return merged


def parse_score(reply: str) -> float | None:
    """The last score in a reply (`Score: 0.7`, `得分：0.7`, `Score: 7/10`) or a reply that is a number; None unless it
    is between 0 and 1."""
    found = _SCORE.findall(reply)
    alone = _ALONE.fullmatch(reply)
    if not found and alone is None:
        return None
    value, of = found[-1] if found else (alone[1], alone[2]) if alone else ("", "")
    try:
        score = float(value) / float(of or 1)
    except ZeroDivisionError:
        return None
    return score if 0 <= score <= 1 else None


def parse_verdict(reply: str) -> str | None:
    """`A`, `B` or `C` (neither); None unless the reply names exactly one of them in double brackets."""
    found = set(_VERDICT.findall(reply))
    return found.pop() if len(found) == 1 else None


def _conversation(prompt: str, shown: list[tuple[str, str]]) -> Messages:
    text = "\n\n".join(f"{name}:\n{value}" for name, value in shown if value.strip() or name not in _REFERENCES)
    return [{"role": "system", "content": prompt}, {"role": "user", "content": text}]


_REFERENCES = {_LAYOUT["en"][1], _LAYOUT["zh"][1]}

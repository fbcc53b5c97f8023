"""Rendering: the one function that turns a task's fields into prompt token ids, in training and in serving alike."""

import hashlib
import json
import string
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_tasks.task import Task
from loradeck_tasks.tokenizing import (
    HuggingFaceTokenizer,
    Text,
    Value,
    control_tokens,
    encode_parts,
    encode_text,
)

_OPEN, _CLOSE = "\ue000", "\ue001"
_RENDERED: MutableMapping[HuggingFaceTokenizer, dict[tuple[Any, ...], str]] = WeakKeyDictionary()
"""What a tokenizer's template made of messages. Marks stand for the values in them, so every task needs a few only."""
_MOST_RENDERED = 256


def render_prompt(task: Task, values: Mapping[str, str], tokenizer: HuggingFaceTokenizer) -> list[int]:
    """Token ids of the prompt for `values`, up to where the answer starts.

    Chat: the tokenizer's chat template over system and user message, with the generation prompt. Plain: the
    tokenizer's own start token if it adds one, system, a blank line, template. Text in `values` is only ever text:
    control tokens written in it come out as characters. Raises InvalidError naming the missing or unknown field.
    """
    for field in task.fields:
        if not isinstance(values.get(field), str):
            raise InvalidError(f"the field `{field}` is missing", reason="MISSING_FIELD", field=field)
    for field in values:
        if field not in task.fields:
            raise InvalidError(
                f"unknown field {field[:60]!r}: this task takes {', '.join(task.fields)}",
                reason="UNKNOWN_FIELD",
                field=field,
            )
    user = _user_parts(task.template, values)
    if task.format == "chat":
        return encode_parts(tokenizer, _chat_parts(tokenizer, task.system, user))
    system: list[Text | Value] = [Text(f"{task.system}\n\n")] if task.system else []
    return _start(tokenizer) + encode_parts(tokenizer, system + user)


def render_example(
    task: Task, values: Mapping[str, str], answer: str, tokenizer: HuggingFaceTokenizer
) -> tuple[list[int], list[int]]:
    """Prompt ids, exactly those of `render_prompt`, and the ids to learn: the answer and the end of the turn.

    For a classification `answer` is a label's name: its label token, else its text. Elsewhere the task's added tokens
    that stand in the answer become those tokens. Raises InvalidError (UNKNOWN_LABEL, MISSING_FIELD).
    """
    prompt = render_prompt(task, values, tokenizer)
    if task.labels:
        ids = label_candidates(task, tokenizer, [answer])[0]
    else:
        ids = encode_text(tokenizer, answer, {token.content: token.id for token in task.added_tokens})
    return prompt, [*ids, end_of_turn(task, tokenizer)]


def label_candidates(
    task: Task, tokenizer: HuggingFaceTokenizer, labels: Sequence[str] | None = None
) -> list[list[int]]:
    """Token ids of each label (all of the task's, or those named): one label token, or the label's text.

    The end of the turn is not part of them. Raises InvalidError (UNKNOWN_LABEL) for a name outside the task's labels.
    """
    known = {label.name: label.token for label in task.labels}
    ids = {token.content: token.id for token in task.added_tokens}
    candidates = []
    for name in known if labels is None else labels:
        if name not in known:
            raise InvalidError(
                f"unknown label {name[:60]!r}: the labels are {', '.join(known)}", reason="UNKNOWN_LABEL", field="label"
            )
        token = known[name]
        candidates.append([ids[token]] if token is not None else encode_text(tokenizer, name))
    return candidates


def stop_token_ids(task: Task, tokenizer: HuggingFaceTokenizer) -> list[int]:
    """Tokens that end an answer: the end of the turn, and the tokenizer's end of text."""
    eos = tokenizer.eos_token_id
    return sorted({end_of_turn(task, tokenizer)} | ({int(eos)} if eos is not None else set()))


def end_of_turn(task: Task, tokenizer: HuggingFaceTokenizer) -> int:
    """The token that closes an answer: the first control token that the chat template puts behind it, else the end of
    text. Raises PreconditionError (NO_END_TOKEN) if there is neither."""
    if task.format == "chat":
        mark = f"{_OPEN}answer{_CLOSE}"
        messages = [{"role": "user", "content": "text"}, {"role": "assistant", "content": mark}]
        control = control_tokens(tokenizer)
        after = _apply(tokenizer, messages, generation=False).partition(mark)[2]
        if found := control.found(after):
            return control.ids[found[0]]
    if tokenizer.eos_token_id is None:
        raise PreconditionError(
            "the tokenizer has no end-of-text token, so no answer could ever end; set `eos_token` in its configuration",
            reason="NO_END_TOKEN",
        )
    return int(tokenizer.eos_token_id)


def tokenizer_for(task: Task | None, folder: Path) -> HuggingFaceTokenizer:
    """The tokenizer in a base's folder plus the task's added tokens, at the ids that the task states.

    Decoding shows added tokens as text, also with `skip_special_tokens`. Raises PreconditionError (TOKENIZER_MISMATCH,
    ADDED_TOKENS) when the folder's tokenizer is not the one the task was made for, or its ids come out otherwise.
    """
    from transformers import AddedToken, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{folder.name} has no tokenizer that can be loaded: {str(error).splitlines()[0]}", reason="NO_TOKENIZER"
        ) from error
    if task is None:
        return tokenizer
    _check_digests(task, tokenizer, folder)
    for token in sorted(task.added_tokens, key=lambda token: token.id):
        if token.content not in tokenizer.get_added_vocab():
            tokenizer.add_tokens(
                [AddedToken(token.content, lstrip=False, rstrip=False, normalized=False, special=False)]
            )
        number = tokenizer.convert_tokens_to_ids(token.content)
        if number != token.id:
            raise PreconditionError(
                f"the added token {token.content!r} comes out as id {number}, not {token.id} as its adapter was "
                "trained with: it belongs to another base or tokenizer",
                reason="ADDED_TOKENS",
            )
    return tokenizer


def tokenizer_digest(folder: Path) -> str:
    """`sha256:…` of what a folder's tokenizer.json does; formatting and padding settings do not count.

    Raises PreconditionError (NO_TOKENIZER).
    """
    try:
        content = json.loads((folder / "tokenizer.json").read_bytes())
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{folder.name} has no readable tokenizer.json; save the tokenizer with transformers' `save_pretrained`",
            reason="NO_TOKENIZER",
        ) from error
    for key in ("truncation", "padding", "version"):
        content.pop(key, None)
    model = content.get("model", {})
    if isinstance(model, dict) and "merges" in model:
        model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    return _digest(json.dumps(content, sort_keys=True, ensure_ascii=False))


def chat_template_digest(tokenizer: HuggingFaceTokenizer) -> str | None:
    """`sha256:…` of the chat template's text, None if the tokenizer has none."""
    template = tokenizer.chat_template
    if template is None:
        return None
    return _digest(template if isinstance(template, str) else json.dumps(template, sort_keys=True))


def _check_digests(task: Task, tokenizer: HuggingFaceTokenizer, folder: Path) -> None:
    vocabulary = tokenizer.get_added_vocab()
    own = bool(task.added_tokens) and all(token.content in vocabulary for token in task.added_tokens)
    if task.tokenizer_digest is not None and not own and tokenizer_digest(folder) != task.tokenizer_digest:
        raise PreconditionError(
            f"the tokenizer of {folder.name} is not the one that the adapter was trained with",
            reason="TOKENIZER_MISMATCH",
        )
    if task.chat_template_digest not in (None, chat_template_digest(tokenizer)):
        raise PreconditionError(
            f"the chat template of {folder.name} is not the one that the adapter was trained with",
            reason="TOKENIZER_MISMATCH",
        )


def _user_parts(template: str, values: Mapping[str, str]) -> list[Text | Value]:
    parts: list[Text | Value] = []
    for literal, field, _, _ in string.Formatter().parse(template):
        if literal:
            parts.append(Text(literal))
        if field is not None:
            parts.append(Value(values[field]))
    return parts


def _chat_parts(
    tokenizer: HuggingFaceTokenizer, system: str | None, user: Sequence[Text | Value]
) -> list[Text | Value]:
    """The chat template over the messages, with the values kept apart: it is applied to marks that stand for them."""
    values = [part for part in user if isinstance(part, Value)]
    marks = [f"{_OPEN}{index}{_CLOSE}" for index in range(len(values))]
    remaining = iter(marks)
    content = "".join(next(remaining) if isinstance(part, Value) else part.text for part in user)
    rendered = _chat_text(tokenizer, system, content)
    parts: list[Text | Value] = []
    for mark, value in zip(marks, values, strict=True):
        before, found, rendered = rendered.partition(mark)
        if not found:
            raise PreconditionError(
                "the chat template changes or drops the user's message, so a prompt cannot be rendered safely with it",
                reason="CHAT_TEMPLATE",
            )
        parts += [Text(before), value]
    return [*parts, Text(rendered)]


def _chat_text(tokenizer: HuggingFaceTokenizer, system: str | None, content: str) -> str:
    user = {"role": "user", "content": content}
    if not system:
        return _apply(tokenizer, [user], generation=True)
    try:
        return _apply(tokenizer, [{"role": "system", "content": system}, user], generation=True)
    except PreconditionError:
        # Templates without a system role refuse one: the system prompt then opens the user's message.
        return _apply(tokenizer, [{"role": "user", "content": f"{system}\n\n{content}"}], generation=True)


def _apply(tokenizer: HuggingFaceTokenizer, messages: list[dict[str, str]], *, generation: bool) -> str:
    if not tokenizer.chat_template:
        raise PreconditionError(
            "the base's tokenizer has no chat template: set the task's `format` to plain", reason="CHAT_TEMPLATE"
        )
    from jinja2 import TemplateError

    kept = _RENDERED.setdefault(tokenizer, {})
    template = str(tokenizer.chat_template)
    key = (template, tokenizer.bos_token, generation, *(tuple(message.items()) for message in messages))
    if key in kept:
        return kept[key]
    try:
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except TemplateError as error:
        raise PreconditionError(
            f"the base's chat template refuses the messages: {error}", reason="CHAT_TEMPLATE"
        ) from error
    if len(kept) < _MOST_RENDERED and "strftime_now" not in template:
        kept[key] = str(text)
    return str(text)


def _start(tokenizer: HuggingFaceTokenizer) -> list[int]:
    """The start token, if the tokenizer itself puts one before text."""
    ids = list(tokenizer.encode("", add_special_tokens=True))
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

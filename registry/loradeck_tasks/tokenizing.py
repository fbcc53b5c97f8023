"""Text to token ids with control tokens under our own hand: what a user types can never become one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

HuggingFaceTokenizer = Any
"""A `transformers` tokenizer; not named by type, so that this package stays free of transformers."""


@dataclass(frozen=True)
class Text:
    """A stretch of text whose control tokens are meant (a template's own)."""

    text: str


@dataclass(frozen=True)
class Value:
    """A stretch of text that is only text, whatever it looks like."""

    text: str


@dataclass(frozen=True)
class Control:
    """A tokenizer's control tokens: every added token but those of white space only."""

    ids: Mapping[str, int]
    strips: Mapping[str, tuple[bool, bool]]
    """Whether a token swallows the white space on its left, on its right."""
    pattern: re.Pattern[str]

    def found(self, text: str) -> list[str]:
        """Literal control tokens in `text`, in order."""
        return self.pattern.findall(text)


def control_tokens(tokenizer: HuggingFaceTokenizer) -> Control:
    """The control tokens of a tokenizer as it is now."""
    added = tokenizer.added_tokens_decoder
    return _control(tuple((int(i), t.content, bool(t.lstrip), bool(t.rstrip)) for i, t in sorted(added.items())))


def encode_text(tokenizer: HuggingFaceTokenizer, text: str, tokens: Mapping[str, int] | None = None) -> list[int]:
    """Token ids of mere text. No control token comes out, except `tokens` (content to id) where they stand in it."""
    if not tokens:
        return _encode_value(tokenizer, control_tokens(tokenizer), text)
    pattern = _pattern(tuple(tokens))
    ids: list[int] = []
    for index, piece in enumerate(pattern.split(text)):
        ids += [tokens[piece]] if index % 2 else _encode_value(tokenizer, control_tokens(tokenizer), piece)
    return ids


def encode_parts(tokenizer: HuggingFaceTokenizer, parts: Sequence[Text | Value]) -> list[int]:
    """Token ids of a rendered prompt.

    If no value holds anything like a control token this is exactly what the tokenizer makes of the whole text. If one
    does, the text between the template's own control tokens is encoded piece by piece with the values' look-alikes
    broken up. Either way the control tokens of the result are those of the `Text` parts, and no other.
    """
    control = control_tokens(tokenizer)
    whole = "".join(part.text for part in parts)
    wanted = [token for part in parts if isinstance(part, Text) for token in control.found(part.text)]
    if control.found(whole) == wanted:
        ids = _encode(tokenizer, whole)
        if _controls_in(control, tokenizer, ids) == [control.ids[token] for token in wanted]:
            return ids
    return _encode_piecewise(tokenizer, control, parts)


def _encode_piecewise(tokenizer: HuggingFaceTokenizer, control: Control, parts: Sequence[Text | Value]) -> list[int]:
    segments: list[str] = [""]
    tokens: list[str] = []
    for part in parts:
        pieces = control.pattern.split(part.text) if isinstance(part, Text) else [part.text]
        for index, piece in enumerate(pieces):
            if index % 2:
                tokens.append(piece)
                segments.append("")
            else:
                segments[-1] += piece
    ids: list[int] = []
    for index, segment in enumerate(segments):
        if index > 0:
            ids.append(control.ids[tokens[index - 1]])
            segment = segment.lstrip() if control.strips[tokens[index - 1]][1] else segment
        if index < len(tokens):
            segment = segment.rstrip() if control.strips[tokens[index]][0] else segment
        ids += _encode_value(tokenizer, control, segment)
    return ids


def _encode_value(tokenizer: HuggingFaceTokenizer, control: Control, text: str) -> list[int]:
    """Encode text with every look-alike of a control token cut after its first character."""
    ids: list[int] = []
    start = 0
    for match in control.pattern.finditer(text):
        ids += _encode(tokenizer, text[start : match.start() + 1])
        start = match.start() + 1
    ids += _encode(tokenizer, text[start:])
    if _controls_in(control, tokenizer, ids):
        # A normalizer made a control token out of other characters: no token spans two of them when each stands alone.
        each = [token for character in text for token in _encode(tokenizer, character)]
        forbidden = set(_controls_in(control, tokenizer, each))
        ids = [token for token in each if token not in forbidden]
    return ids


def _encode(tokenizer: HuggingFaceTokenizer, text: str) -> list[int]:
    # Not verbose: lengths are checked in training and in serving, and callers could fill a log with warnings.
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False)) if text else []


def _controls_in(control: Control, tokenizer: HuggingFaceTokenizer, ids: Sequence[int]) -> list[int]:
    """Control ids in `ids`, in order; the unknown token is what strange text is made of, and no control."""
    known = set(control.ids.values()) - {tokenizer.unk_token_id}
    return [token for token in ids if token in known]


@lru_cache(maxsize=64)
def _control(added: tuple[tuple[int, str, bool, bool], ...]) -> Control:
    tokens = [entry for entry in added if entry[1].strip()]
    return Control(
        {content: number for number, content, _, _ in tokens},
        {content: (left, right) for _, content, left, right in tokens},
        _pattern(tuple(content for _, content, _, _ in tokens)),
    )


@lru_cache(maxsize=64)
def _pattern(contents: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `contents`, the longest first, as one group; never matches if there are none."""
    longest_first = sorted(contents, key=lambda content: (-len(content), content))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if contents else "((?!))")

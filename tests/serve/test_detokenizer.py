"""Incremental text: whole characters only, and stop strings wherever they fall."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradeck_serve.text.detokenizer import Detokenizer, StopStrings
from tests.serve.deck import Deck

TEXTS = ("plain text", "héllo wörld", "日本語とカナ", "🎉🚀 go", "a 🎉 b é c 語 d", "tab\tnew\nline")


@pytest.fixture(scope="module")
def tokenizer(made_deck: Deck) -> Any:
    """A byte-level tokenizer: every character beyond ASCII is several tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(made_deck.base.folder))


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_make_the_text(tokenizer: Any, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) + detokenizer.end() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_never_shown(tokenizer: Any) -> None:
    tokens = tokenizer.encode("ab 🎉")
    for cut in range(1, 4):
        detokenizer = Detokenizer(tokenizer)
        assert detokenizer.push(tokens[:-cut]) + detokenizer.end() == "ab "


def test_special_tokens_are_left_out(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer)
    tokens = [*tokenizer.encode("yes"), tokenizer.eos_token_id]
    assert detokenizer.push(tokens) == "yes"


def test_stop_string_across_tokens_ends_the_text(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer, ["END🎉"])
    pieces = [detokenizer.push([token]) for token in tokenizer.encode("the answer END🎉 and more")]
    assert "".join(pieces) == "the answer "
    assert detokenizer.stopped


@given(
    st.lists(st.text("abE N", max_size=4), max_size=12),
    st.lists(st.text("abEN", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_any_cutting_gives_the_text_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    found = [at for at in map(whole.find, stops) if at >= 0]
    scanner = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += scanner.push(piece)
        assert not any(stop in shown for stop in stops)
        if scanner.stopped:
            break
    shown += scanner.end()
    assert scanner.stopped == bool(found)
    # A stop string that is complete earlier wins, even if another one would begin before it further on.
    assert whole.startswith(shown)
    if not found:
        assert shown == whole

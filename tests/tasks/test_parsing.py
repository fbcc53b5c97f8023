"""Parsing: stop strings, also when they arrive in pieces."""

import pytest

from loradeck_tasks.defaults import default_task
from loradeck_tasks.parsing import cut_at_stop, held_back, parse_answer


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("  an answer \n", (), "an answer"),
        ("first\nsecond", ("\n",), "first"),
        ("a ### b", ("###", "a#"), "a"),
        ("no stop here", ("###",), "no stop here"),
        ("b ## a", ("a", "##"), "b"),
        ("###", ("###",), ""),
    ],
)
def test_answer_ends_at_the_first_stop_string(text: str, stop: tuple[str, ...], expected: str) -> None:
    assert parse_answer(default_task("generate", stop=stop), text) == expected


def test_cut_says_whether_there_was_a_stop() -> None:
    assert cut_at_stop("a|b", ("|",)) == ("a", True)
    assert cut_at_stop("ab", ("|",)) == ("ab", False)


@pytest.mark.parametrize(
    ("text", "stop", "count"),
    [("abc#", ("###",), 1), ("abc##", ("###",), 2), ("abc", ("###",), 0), ("xab", ("abc", "b!"), 2), ("", ("a",), 0)],
)
def test_held_back_is_what_may_become_a_stop(text: str, stop: tuple[str, ...], count: int) -> None:
    assert held_back(text, stop) == count


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_stream_shows_the_same_as_the_whole(size: int) -> None:
    text, stop = "one ## two # three ### four", ("###",)
    whole = cut_at_stop(text, stop)[0]
    shown = ""
    for end in range(size, len(text) + size, size):
        cut, stopped = cut_at_stop(text[:end], stop)
        now = cut if stopped else cut[: len(cut) - held_back(cut, stop)]
        assert now.startswith(shown), "what was shown is never taken back"
        shown = now
    assert shown == whole

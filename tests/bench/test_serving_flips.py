"""Flips under load: what replies are right, and the times that come out."""

import pytest

from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.serving.flip_account import Flip, Flipping, account, allowed, first_tokens, wrong_reply

OLD, NEW, OTHER = ("sha256:" + letter * 64 for letter in "abc")
GOLDEN = {(OLD, 0): "old", (NEW, 0): "new", (OTHER, 0): "other", ("", 0): "base"}
INITIAL = {"a": OLD, "b": OTHER}
FLIP = Flip("a", NEW, started=10.0, acknowledged=10.5)


def reply(
    sent: float, digest: str = OLD, text: str = "old", adapter: str = "a@prod", first: float = 0.1, end: float = 0.2
) -> RequestRecord:
    """An answered request; `first` and `end` in seconds after `sent`."""
    return RequestRecord(
        0, adapter, "generate", 0, sent, sent=sent, first=sent + first, end=sent + end, status=OK, text=text,
        digest=digest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "end", "expected"),
    [
        (1.0, 2.0, {OLD}),
        (9.5, 10.1, {OLD, NEW}),
        (10.2, 10.3, {OLD, NEW}),
        (10.6, 11.0, {NEW}),
    ],
)
def test_revisions_that_may_answer_follow_the_flip(sent: float, end: float, expected: set[str]) -> None:
    assert allowed([FLIP], OLD, "a", sent, end) == expected


def test_other_names_flips_and_missing_acknowledgements() -> None:
    assert allowed([FLIP], OTHER, "b", 20.0, 21.0) == {OTHER}
    silent = Flip("a", NEW, started=10.0)
    assert allowed([silent], OLD, "a", 50.0, 51.0) == {OLD, NEW}
    back = Flip("a", OLD, started=20.0, acknowledged=20.5)
    assert allowed([FLIP, back], OLD, "a", 15.0, 16.0) == {NEW}
    assert allowed([FLIP, back], OLD, "a", 21.0, 22.0) == {OLD}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (reply(1.0), None),
        (reply(1.0, text="new"), "not that of digest"),
        (reply(1.0, NEW, "new"), "did not mean"),
        (reply(12.0, NEW, "new"), None),
        (reply(12.0, OLD, "old"), "did not mean"),
        (reply(1.0, "sha256:" + "d" * 64), "of no revision under test"),
        (reply(1.0, OTHER, "other"), "did not mean"),
        (reply(1.0, OTHER, "other", "b@prod"), None),
        (reply(1.0, "", "base", ""), None),
        (reply(1.0, "", "old", ""), "(base)"),
        (reply(1.0, OLD, "old", ""), "request to the base"),
        (reply(1.0, "", "base"), "did not mean"),
    ],
)
def test_wrong_replies_are_told(record: RequestRecord, why: str | None) -> None:
    found = wrong_reply(record, [FLIP], INITIAL, GOLDEN)
    assert found is None if why is None else found is not None and why in found


def test_first_token_is_of_the_new_revision_after_the_flip() -> None:
    records = [reply(1.0, NEW, "new"), reply(10.2), reply(10.8, NEW, "new"), reply(10.6, NEW, "new", first=0.15)]
    never = Flip("b", OLD, started=5.0)
    assert first_tokens(records, [FLIP, never]) == [pytest.approx(0.75), None]


def test_account_counts_and_parts_before_from_during() -> None:
    failed = RequestRecord(0, "a@prod", "generate", 0, 11.0, sent=11.0, end=11.5, status="unavailable", reason="GONE")
    records = [
        reply(1.0, first=0.02), reply(2.0, "", "base", "", first=0.04), failed, reply(12.0, NEW, "new", first=0.06),
        reply(13.0, NEW, "old"),
    ]  # fmt: skip
    result = account(records, Flipping([FLIP], [(0.0, 10.0)], [(10.0, 12.5)]), INITIAL, GOLDEN)
    assert (result["flips"], result["requests"], result["failed"], result["wrong_revision"]) == (1, 5, 1, 1)
    assert result["errors"] == {"GONE": 1}
    assert result["wrong_examples"][0]["sent"] == 13.0
    assert result["flip_to_first_token_ms"] == {"p50": pytest.approx(2060), "p99": pytest.approx(2060)}
    # The one at 13 s is in neither, and is checked all the same.
    assert (result["requests_before"], result["requests_during"], result["replies_checked"]) == (2, 1, 4)
    assert result["ttft_p99_before_ms"] == pytest.approx(39.8)
    assert result["ttft_p99_during_ms"] == pytest.approx(60.0)
    assert result["ttft_p99_ratio"] == pytest.approx(60.0 / 39.8)


def test_account_without_answers_has_no_times() -> None:
    result = account([], Flipping([], [], []), INITIAL, GOLDEN)
    assert result["flip_to_first_token_ms"] == {"p50": None, "p99": None}
    assert (result["ttft_p99_before_ms"], result["ttft_p99_ratio"], result["requests"]) == (None, None, 0)

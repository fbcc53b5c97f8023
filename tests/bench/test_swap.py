"""Swap accounting: planted wrong replies are caught, honest ones are not."""

from loradeck_bench.load.record import RequestRecord
from loradeck_bench.swap import Moments, Target, account, wrong_reply

OLD = Target(1, "sha256:" + "a" * 64)
NEW = Target(2, "sha256:" + "b" * 64)
MOMENTS = Moments(move_started=1.0, move_written=1.1, acknowledged=1.6)


def reply(sent: float, revision: int, digest: str | None = None, end: float | None = None) -> RequestRecord:
    digest = digest or {1: OLD.digest, 2: NEW.digest}.get(revision, "sha256:" + "c" * 64)
    return RequestRecord(
        index=0, adapter="clf@prod", task="classification", row=0, intended=sent, sent=sent,
        end=sent + 0.05 if end is None else end, status="ok", revision=revision, digest=digest,
    )  # fmt: skip


def test_clean_swap_has_no_wrong_reply_and_names_its_stages() -> None:
    records = [reply(0.5, 1), reply(1.2, 1), reply(1.55, 1, end=1.7), reply(1.58, 2), reply(1.7, 2)]
    result = account(records, OLD, NEW, MOMENTS, publish_seconds=0.3)
    assert result["wrong_revision"] == 0
    assert result["requests"] == 5
    assert result["failed"] == 0
    assert result["answered_by"] == {"1": 3, "2": 2}
    seconds = {stage: round(value, 6) for stage, value in result["seconds"].items()}
    assert seconds == {
        "publish": 0.3, "alias_move": 0.1, "move_seen": 0.5, "first_new_answer": 0.63, "last_old_answer": 0.7,
    }  # fmt: skip
    assert result["completed"]


def test_third_revision_is_wrong() -> None:
    assert "neither 1 nor 2" in str(wrong_reply(reply(0.5, 3), OLD, NEW, None))


def test_old_revision_is_wrong_only_for_requests_sent_after_the_flip() -> None:
    assert wrong_reply(reply(1.59, 1, end=9.0), OLD, NEW, 1.6) is None
    assert "after the flip" in str(wrong_reply(reply(1.61, 1), OLD, NEW, 1.6))
    assert wrong_reply(reply(1.61, 1), OLD, NEW, None) is None


def test_digest_of_the_other_revision_is_wrong() -> None:
    assert "digest" in str(wrong_reply(reply(1.2, 1, digest=NEW.digest), OLD, NEW, 1.6))


def test_planted_wrong_replies_are_counted_and_shown() -> None:
    records = [reply(0.5, 1), reply(1.7, 1), reply(1.8, 2, digest=OLD.digest), reply(1.9, 7), reply(2.0, 2)]
    result = account(records, OLD, NEW, MOMENTS, publish_seconds=None)
    assert result["wrong_revision"] == 3
    assert len(result["wrong_examples"]) == 3


def test_failed_requests_are_counted_apart() -> None:
    failed = reply(1.2, 0)
    failed.status, failed.reason = "unavailable", "DRAINING"
    result = account([reply(0.5, 1), failed], OLD, NEW, MOMENTS, publish_seconds=None)
    assert (result["failed"], result["errors"], result["wrong_revision"]) == (1, {"DRAINING": 1}, 0)
    assert not result["completed"]
    assert result["seconds"]["first_new_answer"] is None

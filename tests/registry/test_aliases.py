"""Alias logs: moves, compare-and-swap, rollback, history."""

from pathlib import Path

import pytest

from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.attachments import evaluation
from loradeck_registry.errors import ConflictError, InvalidError, NotFoundError, PreconditionError
from loradeck_registry.registry import Registry
from tests.registry.support import push


@pytest.fixture
def three(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with clf@1 to clf@3 and no alias."""
    for seed in (1, 2, 3):
        push(registry, tmp_path / "a", seed=seed)
    return registry


def _points(registry: Registry) -> int:
    return registry.resolve("clf@prod").number


def test_move_records_who_when_why(three: Registry) -> None:
    entry = three.move_alias("clf", "prod", "2", who="ada", why="better")
    assert (entry.number, entry.revision, entry.who, entry.why) == (1, 2, "ada", "better")
    assert three.aliases("clf") == {"prod": entry}
    assert entry.digest == three.resolve("clf@2").digest


@pytest.mark.parametrize("target", ["2", "clf@2", "latest", "staging", "clf@staging", "DIGEST"])
def test_target_may_be_any_reference_within_the_name(three: Registry, target: str) -> None:
    three.move_alias("clf", "staging", "3")
    text = three.resolve("clf@3").digest if target == "DIGEST" else target
    assert three.move_alias("clf", "prod", text).revision == (2 if target in ("2", "clf@2") else 3)


@pytest.mark.parametrize(
    ("alias", "target", "error"),
    [
        ("prod", "9", NotFoundError),
        ("prod", "other@1", InvalidError),
        ("7", "1", InvalidError),
        ("latest", "1", InvalidError),
        ("../x", "1", InvalidError),
    ],
)
def test_bad_move_leaves_no_entry(three: Registry, alias: str, target: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        three.move_alias("clf", alias, target)
    assert three.aliases("clf") == {}


def test_expect_is_compare_and_swap(three: Registry) -> None:
    three.move_alias("clf", "prod", "1", expect=0)
    three.move_alias("clf", "prod", "2", expect=1)
    for expect in (0, 1, 3):
        with pytest.raises(ConflictError) as caught:
            three.move_alias("clf", "prod", "3", expect=expect)
        assert caught.value.reason == "ALIAS_MOVED"
        assert caught.value.metadata == {"revision": "2"}
    assert _points(three) == 2


def test_expect_loses_against_a_writer_in_between(three: Registry) -> None:
    three.move_alias("clf", "prod", "1")
    other = Registry.open(three.url)
    log = three._alias("clf", "prod")
    read_last = log._log.last

    def last_then_overtaken() -> int:
        last = read_last()
        if other.resolve("clf@prod").number == 1:
            other.move_alias("clf", "prod", "3", who="other")
        return last

    log._log.last = last_then_overtaken  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="set by other"):
        three.move_alias("clf", "prod", "2", expect=1)
    assert [entry.revision for entry in other.history("clf", "prod")] == [3, 1]


def test_rollback_goes_back_and_then_further(three: Registry) -> None:
    for target in ("1", "2", "2", "3"):
        three.move_alias("clf", "prod", target)
    assert three.rollback("clf", "prod").revision == 2
    assert three.rollback("clf", "prod").revision == 1
    with pytest.raises(PreconditionError) as caught:
        three.rollback("clf", "prod")
    assert caught.value.reason == "NO_PREVIOUS_REVISION"
    assert [entry.revision for entry in three.history("clf", "prod")] == [1, 2, 3, 2, 2, 1]


def test_rollback_after_a_rollback_and_a_move_skips_what_was_rolled_back(three: Registry) -> None:
    three.move_alias("clf", "prod", "1")
    three.move_alias("clf", "prod", "2")
    three.rollback("clf", "prod")
    three.move_alias("clf", "prod", "3")
    assert three.rollback("clf", "prod").revision == 1
    with pytest.raises(PreconditionError):
        three.rollback("clf", "prod")


def test_rollback_of_what_does_not_exist(three: Registry) -> None:
    with pytest.raises(NotFoundError):
        three.rollback("clf", "prod")
    with pytest.raises(NotFoundError):
        three.history("nothing", "prod")


def test_history_is_newest_first_and_keeps_all(three: Registry) -> None:
    moved = [three.move_alias("clf", "prod", str(number), why=f"move {number}") for number in (1, 2, 3)]
    entries: list[AliasEntry] = three.history("clf", "prod")
    assert entries == moved[::-1]
    assert Registry.open(three.url).history("clf", "prod") == entries


class TestWeighted:
    def test_callers_are_drawn_by_weight_and_stick(self, three: Registry) -> None:
        entry = three.move_alias("clf", "prod", {"1": 90, "2": 10})
        assert entry.weighted
        assert [(target.revision, target.weight) for target in entry.targets] == [(1, 0.9), (2, 0.1)]
        callers = [f"caller {number}" for number in range(2000)]
        drawn = {caller: three.resolve("clf@prod", caller=caller).number for caller in callers}
        assert 120 < sum(number == 2 for number in drawn.values()) < 280
        again = Registry.open(three.url)
        assert all(again.resolve("clf", caller=caller).number == number for caller, number in drawn.items())

    def test_growing_share_moves_callers_one_way_only(self, three: Registry) -> None:
        few = three.move_alias("clf", "prod", {"1": 0.9, "2": 0.1})
        more = three.move_alias("clf", "prod", {"1": 0.7, "2": 0.3})
        callers = [f"caller {number}" for number in range(500)]
        before, after = ({c for c in callers if entry.draw(c).revision == 2} for entry in (few, more))
        assert before < after

    def test_without_a_caller_the_largest_share_answers(self, three: Registry) -> None:
        entry = three.move_alias("clf", "prod", {"2": 1, "1": 3})
        assert entry.revision == three.resolve("clf@prod").number == 1

    def test_expect_and_rollback_know_weights(self, three: Registry) -> None:
        three.move_alias("clf", "prod", "1")
        three.move_alias("clf", "prod", {"1": 90, "2": 10}, expect=1)
        assert three.rollback("clf", "prod").targets == three.history("clf", "prod")[-1].targets
        assert not three.aliases("clf")["prod"].weighted
        assert three.history("clf", "prod")[0].why == "rollback from 1=0.9, 2=0.1"
        assert three.verify().clean

    @pytest.mark.parametrize("targets", [{"1": 0.0, "2": 1.0}, {"1": -1.0}, {"1": 1.0, "clf@1": 1.0}, {}])
    def test_bad_weights_leave_no_entry(self, three: Registry, targets: dict[str, float]) -> None:
        with pytest.raises(InvalidError):
            three.move_alias("clf", "prod", targets)
        assert three.aliases("clf") == {}


class TestProtected:
    @pytest.fixture
    def protected(self, three: Registry) -> Registry:
        """prod is protected; revision 1 has 0.80, revision 2 0.795, revision 3 nothing."""
        for number, value in ((1, 0.8), (2, 0.795)):
            report = evaluation({"metrics": {"macro_f1": value}, "dataset": "test"})
            three.attach(three.resolve(f"clf@{number}"), "evaluation", report)
        three.protect("clf", "prod", ["macro_f1 >= 0.79", "macro_f1 >= @prod - 0.01"])
        return three

    def test_what_passes_is_let_through(self, protected: Registry) -> None:
        assert protected.move_alias("clf", "prod", "1").revision == 1
        assert protected.move_alias("clf", "prod", "2").revision == 2
        assert protected.move_alias("clf", "other", "3").revision == 3

    def test_missing_metric_is_refused(self, protected: Registry) -> None:
        with pytest.raises(PreconditionError, match="no macro_f1") as caught:
            protected.move_alias("clf", "prod", "3")
        assert caught.value.reason == "GATE_FAILED"
        assert protected.aliases("clf") == {}

    def test_worse_than_what_prod_points_to_is_refused(self, protected: Registry) -> None:
        protected.move_alias("clf", "prod", "1")
        protected.attach(protected.resolve("clf@3"), "evaluation", evaluation({"macro_f1": 0.7899}))
        with pytest.raises(PreconditionError, match=r"it is 0\.7899, the bound 0\.79") as caught:
            protected.move_alias("clf", "prod", "3")
        assert caught.value.metadata["failures"].count("macro_f1 >=") == 2
        assert _points(protected) == 1

    def test_every_target_of_a_weighted_move_must_pass(self, protected: Registry) -> None:
        with pytest.raises(PreconditionError):
            protected.move_alias("clf", "prod", {"1": 99, "3": 1})
        assert protected.move_alias("clf", "prod", {"1": 99, "2": 1}).weighted

    def test_push_with_the_alias_is_gated_too(self, protected: Registry, tmp_path: Path) -> None:
        with pytest.raises(PreconditionError):
            push(protected, tmp_path / "b", seed=7, alias="prod")
        assert protected.aliases("clf") == {}

    def test_rules_can_be_read_and_lifted(self, protected: Registry) -> None:
        assert Registry.open(protected.url).rules("clf", "prod") == ["macro_f1 >= 0.79", "macro_f1 >= @prod - 0.01"]
        protected.protect("clf", "prod", [])
        assert protected.move_alias("clf", "prod", "3").revision == 3

    @pytest.mark.parametrize(
        "rule", ["macro_f1", "macro_f1 => 1", ">= 1", "macro_f1 >= x", "a >= @prod * 2", "a >= 1; b"]
    )
    def test_bad_rule_is_refused(self, protected: Registry, rule: str) -> None:
        with pytest.raises(InvalidError) as caught:
            protected.protect("clf", "prod", [rule])
        assert caught.value.reason == "BAD_RULE"
        assert len(protected.rules("clf", "prod")) == 2

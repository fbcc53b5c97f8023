"""Alias logs: moves, compare-and-swap, rollback, history."""

from pathlib import Path

import pytest

from loradeck_registry.aliases import AliasEntry
from loradeck_registry.errors import ConflictError, InvalidError, NotFoundError, PreconditionError, UnimplementedError
from loradeck_registry.log import encode
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


def test_weighted_alias_is_refused_not_ignored(three: Registry) -> None:
    digests = [three.resolve(f"clf@{number}").digest for number in (1, 2)]
    targets = [{"revision": n + 1, "digest": digest, "weight": 0.5} for n, digest in enumerate(digests)]
    folder = Path(three.url) / "aliases" / "clf" / "prod"
    folder.mkdir(parents=True)
    record = {"format": 1, "targets": targets, "who": "x", "when": "2025-01-01T00:00:00+00:00", "why": ""}
    (folder / "00000001.json").write_bytes(encode(record))
    with pytest.raises(UnimplementedError):
        three.resolve("clf@prod")

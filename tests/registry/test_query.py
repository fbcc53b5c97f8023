"""Attachments, filters, pages and lineage."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loradeck_registry.aliases.gates import Rule
from loradeck_registry.attachments import evaluation
from loradeck_registry.errors import InvalidError
from loradeck_registry.query import Filter, find, lineage
from loradeck_registry.registry import Registry
from tests.registry.support import make_files, make_manifest, overwrite, push


def test_attachments_leave_the_digest_alone(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    registry.tag(revision, "paper", who="ada")
    registry.attach(revision, "note", {"text": "looks good"})
    registry.attach(revision, "evaluation", evaluation({"macro_f1": 0.5}))
    registry.attach(revision, "evaluation", evaluation({"macro_f1": 0.8, "accuracy": {"value": 0.9, "low": 0.8}}))
    fresh = Registry.open(registry.url)
    assert fresh.resolve("clf").digest == revision.digest
    assert fresh.tags(revision) == ["paper"]
    assert fresh.metrics(revision) == {"macro_f1": 0.8, "accuracy": 0.9}
    assert [entry.content["text"] for entry in fresh.attachments(revision, "note")] == ["looks good"]
    assert fresh.verify().clean
    fresh.tag(revision, "paper", remove=True)
    assert registry.tags(revision) == []


def test_bad_tag_and_empty_evaluation_are_refused(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    with pytest.raises(InvalidError):
        registry.tag(revision, "Has Space")
    with pytest.raises(InvalidError):
        evaluation({"comment": "fine"})


def test_evaluation_of_another_revision_is_refused(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    report = {"macro_f1": 0.9, "answered_by": [{"name": "clf", "revision": 1, "digest": revision.digest, "rows": 5}]}
    assert evaluation(report, revision.digest)["metrics"] == {"macro_f1": 0.9}
    with pytest.raises(InvalidError, match="is of clf@1") as caught:
        evaluation(report, f"sha256:{'0' * 64}")
    assert caught.value.reason == "OTHER_REVISION"


@pytest.fixture
def filled(registry: Registry, tmp_path: Path) -> Registry:
    """Five names that differ."""
    for number in range(5):
        files = make_files(tmp_path / str(number), seed=number)
        task = {"kind": "classification" if number < 2 else "generate"}
        created = datetime(2025, 1, 1 + number, tzinfo=UTC)
        registry.push(
            f"n{number}", make_manifest(files, task=task, create_time=created), files, author=f"user-{number}"
        )
    registry.tag(registry.resolve("n3"), "paper")
    registry.attach(registry.resolve("n1"), "evaluation", evaluation({"metrics": {"macro_f1": 0.9}}))
    return registry


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["n0", "n1", "n2", "n3", "n4"]),
        ({"task": "classification"}, ["n0", "n1"]),
        ({"author": "user-[34]"}, ["n3", "n4"]),
        ({"tags": ("paper",)}, ["n3"]),
        ({"tags": ("paper", "other")}, []),
        ({"base": "hub:org/*"}, ["n0", "n1", "n2", "n3", "n4"]),
        ({"base": "hub:other/*"}, []),
        ({"base": f"sha256:{'b' * 64}"}, ["n0", "n1", "n2", "n3", "n4"]),
        ({"since": datetime(2025, 1, 3, tzinfo=UTC), "until": datetime(2025, 1, 5, tzinfo=UTC)}, ["n2", "n3"]),
        ({"metrics": (Rule.parse("macro_f1 >= 0.8"),)}, ["n1"]),
        ({"metrics": (Rule.parse("macro_f1 > 0.95"),)}, []),
        ({"kind": "full"}, []),
    ],
)
def test_filters(filled: Registry, wanted: dict[str, Any], names: list[str]) -> None:
    assert [row.name for row in find(filled, Filter(**wanted)).rows] == names


def test_pages_join_to_the_whole(filled: Registry) -> None:
    first = find(filled, limit=2)
    second = find(filled, limit=2, after=first.following or "")
    third = find(filled, limit=2, after=second.following or "")
    assert [[row.name for row in page.rows] for page in (first, second, third)] == [["n0", "n1"], ["n2", "n3"], ["n4"]]
    assert third.following is None
    assert find(filled, limit=5).following is None


def test_damaged_name_is_listed_with_its_error(filled: Registry) -> None:
    overwrite(filled, "revisions/n2/00000001.json", b"{")
    rows = {row.name: row for row in find(Registry.open(filled.url)).rows}
    assert "damaged" in (rows["n2"].error or "")
    assert rows["n1"].latest is not None


def test_filter_against_an_alias_is_refused() -> None:
    with pytest.raises(InvalidError):
        Filter(metrics=(Rule.parse("macro_f1 >= @prod"),))


def test_lineage_from_data_to_alias_moves(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    provenance = {"data": {"digest": "sha256:1"}, "recipe": {"rank": 8}, "seed": 7}
    revision = registry.push("clf", make_manifest(files, provenance=provenance), files, alias="prod")
    push(registry, tmp_path / "b", seed=1, alias="prod")
    registry.move_alias("clf", "canary", {"1": 1, "2": 1})
    registry.attach(revision, "note", {"text": "x"})
    found = lineage(registry, revision)
    assert found.data == {"digest": "sha256:1"}
    assert found.run == {"recipe": {"rank": 8}, "seed": 7}
    assert found.parents == ["hub:org/base"]
    assert [(entry.alias, entry.number) for entry in found.moves] == [("prod", 1), ("canary", 1)]
    assert [entry.kind for entry in found.attachments] == ["note"]
    assert found.moves[0].when <= found.moves[1].when <= datetime.now(UTC) + timedelta(seconds=1)

"""Object stores: transfers in parts, progress, and what is said when a store cannot be used."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loradeck_registry.errors import NotFoundError, PreconditionError, UnavailableError
from loradeck_registry.registry import Registry
from loradeck_registry.stores import addresses
from loradeck_registry.stores import store as store_module
from loradeck_registry.stores.addresses import open_store
from loradeck_registry.stores.store import Store
from tests.registry.s3_server import make_bucket, open_uploads
from tests.registry.support import make_manifest

SIZE = 21 << 20


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> str:
    """A bucket of its own for the test."""
    name = f"b{abs(hash(request.node.name)):x}"
    make_bucket(s3, name)
    return name


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    """A file of more than one part, and its digest."""
    path = tmp_path / "large"
    path.write_bytes(b"".join(bytes([n]) * (1 << 20) for n in range(SIZE >> 20)))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_large_file_goes_up_in_parts_and_comes_back(bucket: str, large: tuple[Path, str]) -> None:
    store = open_store(f"s3://{bucket}/x")
    seen: list[int] = []
    store.put_file("blob", large[0], large[1], SIZE, seen.append)
    assert sum(seen) == SIZE
    assert len(seen) > 2
    assert b"".join(store.chunks("blob")) == large[0].read_bytes()


def test_upload_of_a_changed_file_is_aborted(s3: str, bucket: str, large: tuple[Path, str]) -> None:
    store = open_store(f"s3://{bucket}/x")
    with pytest.raises(PreconditionError) as caught:
        store.put_file("blob", large[0], "0" * 64, SIZE)
    assert caught.value.reason == "FILE_CHANGED"
    assert store.size("blob") is None
    assert b"<Upload>" not in open_uploads(s3, bucket)


def test_broken_download_goes_on_where_it_stopped(
    bucket: str, large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{bucket}/x")
    store.put_file("blob", large[0], large[1], SIZE)
    whole = store._stream
    starts: list[int] = []

    def breaking(key: str, position: int) -> Iterator[bytes]:
        starts.append(position)
        for number, chunk in enumerate(whole(key, position)):
            if len(starts) < 3 and number == 1:
                raise UnavailableError("the line broke")
            yield chunk

    monkeypatch.setattr(store, "_stream", breaking)
    assert b"".join(store.chunks("blob")) == large[0].read_bytes()
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2]


def test_put_if_absent_creates_once(bucket: str) -> None:
    one, two = (open_store(f"s3://{bucket}/x") for _ in range(2))
    assert one.put_if_absent("key", b"one")
    assert not two.put_if_absent("key", b"two")
    assert two.get("key") == b"one"


@pytest.mark.parametrize("action", [Registry.open, Registry.init])
def test_missing_bucket_is_named(s3: str, action: object) -> None:
    with pytest.raises(NotFoundError) as caught:
        action("s3://no-such-bucket-here/x")  # type: ignore[operator]
    assert caught.value.reason == "NO_BUCKET"
    assert "no-such-bucket-here" in caught.value.message
    assert "\n" not in caught.value.message


def test_azure_without_an_account_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PreconditionError) as caught:
        Registry.open("az://container/x")
    assert caught.value.reason == "NO_CREDENTIALS"
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.message


def test_server_that_does_not_answer_is_unavailable(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(addresses, "_RETRIES", {"max_retries": 0})
    with pytest.raises(UnavailableError):
        Registry.open("s3://bucket/x")


def test_bucket_of_other_things_is_refused(s3: str, bucket: str) -> None:
    open_store(f"s3://{bucket}").put_if_absent("thesis.tex", b"x")
    with pytest.raises(PreconditionError) as caught:
        Registry.init(f"s3://{bucket}")
    assert caught.value.reason == "NOT_EMPTY"
    assert Registry.init(f"s3://{bucket}/registry").names() == []


def test_two_prefixes_of_a_bucket_are_two_registries(bucket: str) -> None:
    one, two = (open_store(f"s3://{bucket}/{prefix}") for prefix in ("one", "two"))
    one.put_if_absent("a/key", b"")
    assert [key for key, _ in one.keys("a")] == ["a/key"]
    assert list(two.keys("a")) == []


def test_part_size_fits_the_largest_files() -> None:
    assert store_module.PART * 10_000 >= 160_000_000_000
    assert isinstance(open_store("memory://x"), Store)


def test_files_of_a_revision_move_at_once(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up and down: each of four waits until all are under way."""
    registry = Registry.init(f"s3://{bucket}/registry")
    files = {}
    for number in range(4):
        files[f"part-{number}.txt"] = tmp_path / f"part-{number}.txt"
        files[f"part-{number}.txt"].write_text(str(number))
    together = threading.Barrier(4, timeout=60)
    put_file, chunks = registry._store.put_file, registry._store.chunks

    def put_together(*arguments: Any) -> None:
        together.wait()
        put_file(*arguments)

    def read_together(key: str) -> Iterator[bytes]:
        together.wait()
        return chunks(key)

    monkeypatch.setattr(registry._store, "put_file", put_together)
    monkeypatch.setattr(registry._store, "chunks", read_together)
    told: list[int] = []
    revision = registry.push("many", make_manifest(files), files, progress=told.append)
    assert sum(told) == revision.manifest.size
    told.clear()
    registry.pull(revision, tmp_path / "out", progress=told.append)
    assert sum(told) == revision.manifest.size
    assert (registry.local(revision) / "part-3.txt").read_text() == "3"

"""Delta storage: full checkpoints as exact differences to their base, and all that must know of it."""

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loradeck_registry import layout
from loradeck_registry.collection.leases import read_leases
from loradeck_registry.collection.retention import Retention
from loradeck_registry.delta.decoding import read_delta
from loradeck_registry.delta.encoding import Source, make_delta
from loradeck_registry.delta.planes import NUMBERS, PLAIN, decode, encode
from loradeck_registry.delta.record import read_record
from loradeck_registry.errors import DamagedError, NotFoundError, PreconditionError
from loradeck_registry.files import describe
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.transfer.bundle import read_bundle, write_bundle
from loradeck_registry.weights import write_weights
from tests.registry.support import (
    BASE,
    content,
    flip,
    make_checkpoint,
    make_manifest,
    objects,
    overwrite,
    push_base,
    push_full,
    remove,
)

NOW = timedelta(0)


def _weights(revision: Revision) -> str:
    return next(file.sha256 for file in revision.manifest.files if file.path == "model.safetensors")


def _delta(revision: Revision) -> str:
    return layout.delta(_weights(revision))


@pytest.fixture
def base(registry: Registry, tmp_path: Path) -> Revision:
    """base@1, stored whole."""
    return push_base(registry, tmp_path / "base")


@pytest.fixture
def full(registry: Registry, base: Revision, tmp_path: Path) -> Revision:
    """full@1, a fine-tune of it, stored as a delta."""
    revision = push_full(registry, tmp_path / "full", 1)
    assert _delta(revision) in objects(registry)
    assert layout.blob(_weights(revision)) not in objects(registry)
    return revision


class TestPlanes:
    @pytest.mark.parametrize("name", ["BF16", "F16", "F32", None])
    @pytest.mark.parametrize("case", ["near", "equal", "far", "alone", "wrap"])
    def test_every_bit_comes_back(self, name: str | None, case: str) -> None:
        number = NUMBERS[name] if name else PLAIN
        generator = np.random.default_rng(0)
        source: NDArray[Any] = generator.integers(0, 256, 12_000, dtype=np.uint8)
        target = source.copy()
        if case == "near":
            target[:: number.size] ^= 3
        elif case == "far":
            target = generator.integers(0, 256, 12_000, dtype=np.uint8)
        elif case == "wrap":
            target = ~source
        coded = encode(target, None if case == "alone" else source, number)
        assert decode(coded, len(target), None if case == "alone" else source, number) == target.tobytes()
        assert len(coded) <= len(target) + 20

    def test_frame_that_claims_another_size_is_refused(self) -> None:
        coded = bytearray(encode(np.zeros(4000, np.uint8) + 7, None, PLAIN))
        assert coded[0] == 1
        with pytest.raises(DamagedError):
            decode(bytes(coded), 8000, None, PLAIN)
        coded[0] = 9
        with pytest.raises(DamagedError):
            decode(bytes(coded), 4000, None, PLAIN)


class TestStorage:
    def test_checkpoint_comes_back_bit_for_bit_and_takes_less(
        self, registry: Registry, full: Revision, tmp_path: Path
    ) -> None:
        original = (tmp_path / "full" / "model.safetensors").read_bytes()
        fresh = Registry.open(registry.url, cache=tmp_path / "other")
        assert (fresh.local(full) / "model.safetensors").read_bytes() == original
        fresh.pull(full, tmp_path / "out")
        assert (tmp_path / "out" / "model.safetensors").read_bytes() == original
        assert sum(fresh.stored_files(full).values()) < 0.8 * full.manifest.size

    def test_unchanged_tensors_take_nothing(self, registry: Registry, base: Revision, tmp_path: Path) -> None:
        files = make_checkpoint(tmp_path / "same", 1, kept=6)
        with (tmp_path / "same" / "model.safetensors").open("rb") as file:
            assert file.read() == (tmp_path / "base" / "model.safetensors").read_bytes()
        identity = BASE.model_copy(update={"reference": "base@1"})
        one_changed = make_checkpoint(tmp_path / "one", 1, kept=5)
        sizes = []
        for number, these in enumerate((files, one_changed)):
            manifest = make_manifest(these, kind="full", lora=None, base=identity)
            sizes.append(sum(registry.stored_files(registry.push(f"full-{number}", manifest, these)).values()))
        assert _weights(registry.resolve("full-0")) == _weights(base)
        tensor = 300 * 64 * 2
        assert sizes[1] < tensor

    def test_embedding_of_other_rows_shares_the_common_ones(
        self, registry: Registry, base: Revision, tmp_path: Path
    ) -> None:
        files = make_checkpoint(tmp_path / "wide", 1, rows=320)
        identity = BASE.model_copy(update={"reference": "base@1"})
        wide = registry.push("wide", make_manifest(files, kind="full", lora=None, base=identity), files)
        assert sum(registry.stored_files(wide).values()) < 0.8 * wide.manifest.size
        assert (registry.local(wide) / "model.safetensors").read_bytes() == files["model.safetensors"].read_bytes()

    def test_what_does_not_resemble_its_base_is_stored_whole(
        self, registry: Registry, base: Revision, tmp_path: Path
    ) -> None:
        folder = tmp_path / "noise"
        folder.mkdir()
        noise = np.random.default_rng(5).integers(0, 2**16, (300, 64), dtype=np.uint16)
        write_weights(folder / "model.safetensors", {"layer.3.weight": noise}, bfloat16=True)
        files = {"model.safetensors": folder / "model.safetensors"}
        identity = BASE.model_copy(update={"reference": "base@1"})
        noisy = registry.push("noise", make_manifest(files, kind="full", lora=None, base=identity), files)
        assert layout.blob(_weights(noisy)) in objects(registry)
        assert _delta(noisy) not in objects(registry)

    def test_base_that_is_known_by_its_files_only(self, registry: Registry, base: Revision, tmp_path: Path) -> None:
        files = make_checkpoint(tmp_path / "full", 3)
        identity = BASE.model_copy(update={"reference": "hub:org/elsewhere"})
        manifest = make_manifest(files, kind="full", lora=None, base=identity)
        revision = registry.push("full", manifest, files, base_folder=tmp_path / "base")
        assert _delta(revision) in objects(registry)

    def test_later_checkpoints_lean_on_the_first_where_the_base_is_not_here(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        first, second = (push_full(registry, tmp_path / str(seed), seed, base="hub:org/away") for seed in (1, 2))
        assert layout.blob(_weights(first)) in objects(registry)
        assert read_record(registry._store, _weights(second)).sources[0].sha256 == _weights(first)

    def test_pushing_it_again_stores_nothing(self, registry: Registry, full: Revision, tmp_path: Path) -> None:
        before = {key for key in objects(registry) if key.startswith(("blobs", "deltas"))}
        push_full(registry, tmp_path / "again", 1, "copy")
        after = {key for key in objects(registry) if key.startswith(("blobs", "deltas"))}
        assert after == before

    def test_adapters_and_bases_stay_whole(self, registry: Registry, base: Revision) -> None:
        assert not [key for key in objects(registry) if key.startswith("deltas/")]

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Many pieces: no call sees more than one, and the body is read as it comes."""
        from loradeck_registry.delta import decoding, encoding, planes

        for module in (planes, encoding, decoding):
            monkeypatch.setattr(module, "PIECE", 1024)
        make_checkpoint(tmp_path / "a")
        target = make_checkpoint(tmp_path / "b", 1)["model.safetensors"]
        source = tmp_path / "a" / "model.safetensors"
        (one,), (two,) = (describe({"model.safetensors": path}) for path in (source, target))
        record = make_delta(target, two, [Source(one, source)], tmp_path / "body")
        assert record is not None
        body = (tmp_path / "body").read_bytes()
        pieces = list(read_delta(record, (body[n : n + 7] for n in range(0, len(body), 7)), [source]))
        assert max(map(len, pieces)) <= 1024
        assert b"".join(pieces) == target.read_bytes()


class TestDamage:
    @pytest.mark.parametrize("part", ["body", "source", "record"])
    def test_is_noticed_and_named(self, registry: Registry, full: Revision, part: str, tmp_path: Path) -> None:
        record = read_record(registry._store, _weights(full))
        key = {
            "body": layout.blob(record.body.sha256),
            "source": layout.blob(record.sources[0].sha256),
            "record": _delta(full),
        }[part]
        flip(registry, key)
        fresh = Registry.open(registry.url, cache=tmp_path / "other")
        with pytest.raises(DamagedError, match="damaged"):
            fresh.local(full)
        assert [finding.object for finding in fresh.verify().damaged] == [key]
        assert not (tmp_path / "other" / "revisions").exists()

    @pytest.mark.parametrize("part", ["body", "source"])
    def test_loss_is_named(self, registry: Registry, full: Revision, part: str, tmp_path: Path) -> None:
        record = read_record(registry._store, _weights(full))
        key = layout.blob((record.body if part == "body" else record.sources[0]).sha256)
        remove(registry, key)
        with pytest.raises(NotFoundError) as caught:
            Registry.open(registry.url, cache=tmp_path / "other").local(full)
        assert caught.value.metadata["object"] == key
        assert [finding.object for finding in registry.verify().missing] == [key]

    def test_record_that_rebuilds_another_file_is_noticed(
        self, registry: Registry, full: Revision, tmp_path: Path
    ) -> None:
        other = push_full(registry, tmp_path / "other-full", 2, "other")
        mine = content(registry, _delta(full)).decode()
        record = read_record(registry._store, _weights(other))
        own = read_record(registry._store, _weights(full)).body
        swapped = mine.replace(own.model_dump_json(), record.body.model_dump_json())
        assert swapped != mine
        overwrite(registry, _delta(full), swapped.encode())
        with pytest.raises(DamagedError):
            Registry.open(registry.url, cache=tmp_path / "other").local(full)
        assert _delta(full) in [finding.object for finding in registry.verify().damaged]

    def test_push_heals_a_broken_delta_and_a_collection_clears_it(
        self, registry: Registry, full: Revision, tmp_path: Path
    ) -> None:
        record = read_record(registry._store, _weights(full))
        remove(registry, layout.blob(record.body.sha256))
        files = make_checkpoint(tmp_path / "again", 1)
        overwrite(registry, _delta(full), record.model_dump_json().replace(record.body.sha256, "0" * 64).encode())
        registry.push("healed", make_manifest(files, kind="full", lora=None, base=full.manifest.base), files)
        assert registry.verify().clean
        assert (registry.local(full) / "model.safetensors").read_bytes() == files["model.safetensors"].read_bytes()
        registry.collect(delete=True, grace=NOW, wait=0)
        assert _delta(full) not in objects(registry)
        assert registry.verify().orphaned == []


class TestCollection:
    def test_source_stays_while_a_delta_needs_it(self, registry: Registry, full: Revision, tmp_path: Path) -> None:
        """The base's revision is lost; its file is needed all the same."""
        remove(registry, layout.revision("base", 1))
        fresh = Registry.open(registry.url, cache=tmp_path / "other")
        report = fresh.collect(delete=True, grace=NOW, wait=0)
        assert report.deleted
        source = read_record(registry._store, _weights(full)).sources[0]
        assert layout.blob(source.sha256) in objects(registry)
        assert fresh.local(full).is_dir()
        assert fresh.verify().clean

    def test_retired_checkpoint_takes_its_delta_along(self, registry: Registry, full: Revision, tmp_path: Path) -> None:
        record = read_record(registry._store, _weights(full))
        push_full(registry, tmp_path / "two", 2)
        report = registry.collect(delete=True, grace=NOW, wait=0, retention=Retention(keep_last=1))
        gone = {item.key for item in report.deleted}
        assert {_delta(full), layout.blob(record.body.sha256)} <= gone
        assert layout.blob(record.sources[0].sha256) not in gone
        verified = Registry.open(registry.url).verify()
        assert verified.clean
        assert verified.orphaned == []
        assert verified.deltas == 1

    def test_lease_on_the_revision_keeps_all_parts(self, registry: Registry, full: Revision, tmp_path: Path) -> None:
        remove(registry, layout.revision("base", 1))
        push_full(registry, tmp_path / "two", 2, base="hub:org/away")
        with registry.hold([full.digest], "server"):
            registry.collect(delete=True, grace=NOW, wait=0, retention=Retention(keep_last=1))
            assert Registry.open(registry.url, cache=tmp_path / "other").local(full).is_dir()

    def test_damaged_record_stops_a_collection(self, registry: Registry, full: Revision) -> None:
        before = objects(registry)
        overwrite(registry, _delta(full), b"{")
        with pytest.raises(PreconditionError, match="damaged"):
            registry.collect(delete=True, grace=NOW, wait=0)
        assert objects(registry) == before

    def test_source_that_goes_during_a_push_is_not_leaned_on(
        self, registry: Registry, base: Revision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from loradeck_registry.parts import uploading

        push_delta = uploading.Upload._push_delta

        def lose_first(self: uploading.Upload, file: Any, packed: Any) -> bool:
            remove(registry, layout.blob(packed.record.sources[0].sha256))
            return push_delta(self, file, packed)

        monkeypatch.setattr(uploading.Upload, "_push_delta", lose_first)
        revision = push_full(registry, tmp_path / "full", 1)
        assert layout.blob(_weights(revision)) in objects(registry)
        assert _delta(revision) not in objects(registry)
        assert Registry.open(registry.url, cache=tmp_path / "other").local(revision).is_dir()

    def test_push_holds_body_and_sources_before_it_stores_the_body(
        self, registry: Registry, base: Revision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_file = registry._store.put_file
        held: list[set[str]] = []

        def look_first(key: str, *arguments: Any) -> None:
            found = {layout.blob(blob) for lease in read_leases(registry._store) for blob in lease.blobs}
            assert key in found
            held.append(found)
            put_file(key, *arguments)

        monkeypatch.setattr(registry._store, "put_file", look_first)
        revision = push_full(registry, tmp_path / "full", 1)
        record = read_record(registry._store, _weights(revision))
        assert {layout.blob(blob) for blob in record.blobs} <= held[-1]


def test_bundle_carries_the_whole_file(registry: Registry, full: Revision, tmp_path: Path) -> None:
    write_bundle(registry, full, tmp_path / "full.tar")
    elsewhere = Registry.init(tmp_path / "elsewhere", cache=tmp_path / "elsewhere-cache")
    moved = read_bundle(elsewhere, tmp_path / "full.tar")
    assert moved.digest == full.digest
    digest = hashlib.sha256((elsewhere.local(moved) / "model.safetensors").read_bytes()).hexdigest()
    assert digest == _weights(full)
    assert elsewhere.verify().deltas == 0


def test_damaged_cached_source_heals(registry: Registry, full: Revision, tmp_path: Path) -> None:
    cache = tmp_path / "other"
    fresh = Registry.open(registry.url, cache=cache)
    fresh.local(full)
    for path in (cache / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            os.truncate(path, 10)
    assert (fresh.local(full) / "model.safetensors").stat().st_size == (
        tmp_path / "full" / "model.safetensors"
    ).stat().st_size

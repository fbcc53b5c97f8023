"""Bases: what identifies one, where one is found, and how one gets into the registry."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loradeck_registry.bases import identity as identity_module
from loradeck_registry.bases.identity import identify_base, read_vocabulary
from loradeck_registry.bases.resolve import add_base, resolve_base
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError, UnavailableError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry
from tests.registry.support import push

pytest.importorskip("torch", reason="needs the train extra")


@pytest.fixture
def registry(folder_registry: Registry) -> Registry:
    """One kind of store will do here."""
    return folder_registry


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base to change."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def _weights(folder: Path, change: object) -> None:
    content = load_file(folder / "model.safetensors")
    change(content)  # type: ignore[operator]
    save_file({name: np.ascontiguousarray(value) for name, value in content.items()}, folder / "model.safetensors")


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestIdentity:
    def test_sizes(self, base: Path) -> None:
        from transformers import AutoTokenizer

        found = identify_base(base, "hub:org/tiny")
        assert found.reference == "hub:org/tiny"
        assert found.vocabulary == len(AutoTokenizer.from_pretrained(base)) == 320
        assert found.rows == 384

    def test_place_and_volatile_settings_do_not_count(self, base: Path, tiny_base: Path) -> None:
        assert identify_base(base, "x") == identify_base(tiny_base, "x")
        _config(base, transformers_version="9.9", use_cache=False)
        found, original = identify_base(base, "x"), identify_base(tiny_base, "x")
        assert found.compatibility == original.compatibility
        assert found.digest != original.digest

    def test_copy_with_more_reserved_rows_is_compatible(self, base: Path, tiny_base: Path) -> None:
        def grow(content: dict[str, np.ndarray]) -> None:
            rows = content["model.embed_tokens.weight"]
            content["model.embed_tokens.weight"] = np.concatenate([rows, np.zeros((32, rows.shape[1]), rows.dtype)])

        _weights(base, grow)
        _config(base, vocab_size=416)
        found, original = identify_base(base, "x"), identify_base(tiny_base, "x")
        assert found.rows == 416
        assert found.vocabulary == original.vocabulary
        assert found.compatibility == original.compatibility
        assert found.digest != original.digest

    @pytest.mark.parametrize("tensor", ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"])
    def test_one_changed_weight_is_another_base(self, base: Path, tiny_base: Path, tensor: str) -> None:
        def nudge(content: dict[str, np.ndarray]) -> None:
            content[tensor] = content[tensor].copy()
            content[tensor][0, 0] += 1

        _weights(base, nudge)
        assert identify_base(base, "x").compatibility != identify_base(tiny_base, "x").compatibility

    def test_changed_setting_is_another_base(self, base: Path, tiny_base: Path) -> None:
        _config(base, rms_norm_eps=0.5)
        assert identify_base(base, "x").compatibility != identify_base(tiny_base, "x").compatibility

    def test_result_is_kept_until_a_file_changes(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = identify_base(base, "x")
        reads: list[Path] = []
        original = identity_module.sha256_of
        monkeypatch.setattr(identity_module, "sha256_of", lambda path: reads.append(path) or original(path))
        assert identify_base(base, "y").digest == first.digest
        assert reads == []
        stat = (base / "model.safetensors").stat()
        os.utime(base / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert identify_base(base, "x") == first
        assert reads

    def test_tokens_that_only_the_configuration_knows_count(self, base: Path) -> None:
        from transformers import AutoTokenizer

        path = base / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"unk_token": "<|unknown|>"}))
        assert read_vocabulary(base) == len(AutoTokenizer.from_pretrained(base)) == 321

    @pytest.mark.parametrize(
        ("name", "error", "words"),
        [
            ("config.json", NotFoundError, "config.json"),
            ("tokenizer.json", NotFoundError, "save_pretrained"),
            ("model.safetensors", InvalidError, "never pickles"),
        ],
    )
    def test_missing_part_is_named(self, base: Path, name: str, error: type[Exception], words: str) -> None:
        (base / name).unlink()
        with pytest.raises(error, match=words):
            identify_base(base, "x")


class TestResolving:
    def test_folder_without_its_path_in_the_reference(self, base: Path) -> None:
        found = resolve_base(f"dir:{base}", None)
        assert found.folder == base
        assert found.reference == found.identity.reference == "dir:base"
        assert found.manifest is None

    def test_base_of_the_registry(self, registry: Registry, base: Path) -> None:
        revision = add_base(registry, "tiny", f"dir:{base}", alias="prod", licence="Apache-2.0")
        found = resolve_base("tiny", registry)
        assert found.manifest == revision.manifest
        assert found.reference == "tiny@1"
        assert found.identity.digest == identify_base(base, "x").digest == revision.manifest.base.digest
        assert {path.name for path in found.folder.iterdir()} == {
            "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
            "chat_template.jinja",
        }  # fmt: skip

    def test_full_checkpoint_is_a_base_and_brings_its_task(self, registry: Registry, base: Path) -> None:
        original = resolve_base(f"dir:{base}", registry)
        copy = Path(shutil.copytree(base, base.parent / "tuned"))
        _weights(copy, lambda content: content.update({n: v * 1.5 for n, v in content.items()}))
        push_folder(registry, "clf-full", copy, original, task={"kind": "generate", "template": "{prompt}"})
        found = resolve_base("clf-full", registry)
        assert found.manifest is not None
        assert found.manifest.kind == "full"
        assert found.manifest.task == {"kind": "generate", "template": "{prompt}"}
        assert found.manifest.base == original.identity
        assert found.identity.compatibility != original.identity.compatibility

    def test_checkpoint_of_another_architecture_is_refused(self, registry: Registry, base: Path) -> None:
        copy = Path(shutil.copytree(base, base.parent / "tuned"))
        _weights(copy, lambda content: content.pop("model.layers.1.mlp.up_proj.weight"))
        with pytest.raises(PreconditionError, match="up_proj") as caught:
            push_folder(registry, "clf-full", copy, resolve_base(f"dir:{base}", registry))
        assert caught.value.reason == "BASE_MISMATCH"

    def test_diverged_checkpoint_is_refused(self, registry: Registry, base: Path) -> None:
        copy = Path(shutil.copytree(base, base.parent / "tuned"))
        _weights(copy, lambda content: content["model.norm.weight"].__setitem__(0, np.nan))
        with pytest.raises(PreconditionError) as caught:
            push_folder(registry, "clf-full", copy, resolve_base(f"dir:{base}", registry))
        assert caught.value.reason == "NOT_FINITE"

    def test_adapter_is_no_base(self, registry: Registry, tmp_path: Path) -> None:
        push(registry, tmp_path / "a")
        with pytest.raises(PreconditionError) as caught:
            resolve_base("clf", registry)
        assert caught.value.reason == "NOT_A_BASE"

    def test_name_without_a_registry(self) -> None:
        with pytest.raises(InvalidError, match="--registry"):
            resolve_base("tiny", None)

    def test_absent_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            resolve_base(f"dir:{tmp_path}/absent", None)


class TestHub:
    @pytest.fixture(autouse=True)
    def _offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def _cached(self, base: Path, hub: Path) -> None:
        """The hub's cache as it is after a download: a snapshot of links into blobs."""
        root = hub / "models--org--tiny"
        snapshot = root / "snapshots" / ("c" * 40)
        snapshot.mkdir(parents=True)
        (root / "blobs").mkdir()
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("c" * 40)
        for number, path in enumerate(sorted(base.iterdir())):
            shutil.copyfile(path, root / "blobs" / str(number))
            (snapshot / path.name).symlink_to(f"../../blobs/{number}")

    def test_offline_and_not_cached_says_what_to_do(self) -> None:
        with pytest.raises(UnavailableError, match="dir:PATH") as caught:
            resolve_base("hub:org/tiny", None)
        assert caught.value.reason == "HUB_UNREACHABLE"

    def test_cached_snapshot_is_found_and_can_be_added(self, registry: Registry, base: Path, tmp_path: Path) -> None:
        self._cached(base, tmp_path / "hub")
        found = resolve_base("org/tiny", None)
        assert found.reference == "hub:org/tiny"
        assert found.identity.digest == identify_base(base, "x").digest
        revision = add_base(registry, "tiny", "hub:org/tiny")
        assert revision.manifest.base.reference == "hub:org/tiny"
        assert registry.verify().clean


class TestReservedRows:
    @pytest.mark.parametrize(("architecture", "tied"), [("qwen2", True), ("llama", False)])
    def test_copy_serves_the_adapters_of_the_original(
        self, registry: Registry, tmp_path: Path, architecture: str, tied: bool
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from tests.support.tiny import make_tiny_base

        original = make_tiny_base(tmp_path / "original", architecture=architecture, tied=tied, reserved=0)  # type: ignore[arg-type]
        revision = add_base(registry, "tiny", f"dir:{original}", reserve_tokens=24)
        copy = resolve_base("tiny", registry)
        assert (copy.identity.vocabulary, copy.identity.rows) == (320, 344)
        assert revision.manifest.base.compatibility == identify_base(original, "x").compatibility
        assert revision.manifest.base.digest == copy.identity.digest != identify_base(original, "x").digest
        ids = torch.tensor([[5, 60, 200, 7]])
        with torch.no_grad():
            before, after = (AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (original, copy.folder))
        assert after.shape[-1] == 344
        assert torch.equal(after[..., :320], before)
        assert not after[..., 320:].any()

    def test_sharded_base_with_an_index(self, registry: Registry, tmp_path: Path) -> None:
        from transformers import AutoModelForCausalLM

        from tests.support.tiny import make_tiny_base

        original = make_tiny_base(tmp_path / "original", tied=False, reserved=0)
        model = AutoModelForCausalLM.from_pretrained(original)
        (original / "model.safetensors").unlink()
        model.save_pretrained(str(original), max_shard_size="300KB")
        size = json.loads((original / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
        add_base(registry, "tiny", f"dir:{original}", reserve_tokens=8)
        copy = resolve_base("tiny", registry)
        index = json.loads((copy.folder / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == size + 2 * 8 * 128 * 4
        assert AutoModelForCausalLM.from_pretrained(copy.folder).config.vocab_size == 328

    def test_base_with_rows_enough_is_stored_as_it_is(self, registry: Registry, base: Path) -> None:
        revision = add_base(registry, "tiny", f"dir:{base}", reserve_tokens=64)
        assert revision.manifest.base.digest == identify_base(base, "x").digest

    def test_nothing_stays_in_the_scratch_folder(self, registry: Registry, base: Path) -> None:
        add_base(registry, "tiny", f"dir:{base}", reserve_tokens=100)
        assert not list((Path(os.environ["LORADECK_CACHE"]) / "tmp").iterdir())

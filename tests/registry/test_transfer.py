"""Import, export, bundles and diff: revisions go out and come back the same."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loradeck_registry.bases.resolve import ResolvedBase, add_base, resolve_base
from loradeck_registry.errors import DamagedError, InvalidError, NotFoundError, PreconditionError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.transfer.bundle import read_bundle, write_bundle
from loradeck_registry.transfer.comparing import compare
from loradeck_registry.transfer.exporting import export_peft
from loradeck_registry.transfer.importing import import_folder
from tests.registry.support import push
from tests.registry.test_conversion import make_peft
from tests.support.tiny import make_tiny_adapter, make_tiny_base

torch = pytest.importorskip("torch", reason="needs the train extra")
TASK = {
    "kind": "generate",
    "template": "{prompt}",
    "added_tokens": [{"content": "<a>", "id": 320}, {"content": "<b>", "id": 321}],
}


@pytest.fixture
def registry(folder_registry: Registry) -> Registry:
    """One kind of store will do here."""
    return folder_registry


@pytest.fixture
def base(registry: Registry, tiny_base: Path) -> ResolvedBase:
    """The tiny base, in the registry."""
    add_base(registry, "tiny", f"dir:{tiny_base}")
    return resolve_base("tiny", registry)


class TestImport:
    def test_adapter_is_converted_and_says_how(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_peft(base.folder, tmp_path / "peft", use_rslora=True)
        done = import_folder(registry, "clf", str(source), base, task={"kind": "generate"}, alias="prod")
        assert done.revision == registry.resolve("clf")
        assert done.revision is not None
        stated = done.revision.manifest.provenance["import"]
        assert stated == {"source": "dir:peft", "findings": list(done.findings)}
        assert any("folded" in finding for finding in done.findings)
        assert done.revision.manifest.lora is not None
        assert done.revision.manifest.lora.alpha == done.revision.manifest.lora.rank == 4

    def test_dry_run_changes_nothing(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_peft(base.folder, tmp_path / "peft")
        done = import_folder(registry, "clf", f"dir:{source}", base, dry_run=True)
        assert done.revision is None
        assert done.facts is not None
        assert done.facts.rank == 4
        assert registry.names() == ["tiny"]

    def test_new_tokens_get_a_task(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_peft(base.folder, tmp_path / "peft", trainable_token_indices={"embed_tokens": [320, 321]})
        content = load_file(source / "adapter_model.safetensors")
        (source / "added_tokens.json").write_text(json.dumps({"<a>": 320, "<b>": 321}))
        asked: list[Any] = []
        done = import_folder(
            registry, "clf", str(source), base, task_for_tokens=lambda tokens: asked.append(dict(tokens)) or TASK
        )
        assert asked == [{320: "<a>", 321: "<b>"}]
        assert done.revision is not None
        assert done.revision.manifest.task == TASK
        rows = load_file(registry.local(done.revision) / "new_tokens.safetensors")["input_rows"]
        name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        np.testing.assert_array_equal(rows, content[name])

    def test_link_is_refused(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_peft(base.folder, tmp_path / "peft")
        (source / "adapter_config.json").rename(tmp_path / "elsewhere.json")
        (source / "adapter_config.json").symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(InvalidError) as caught:
            import_folder(registry, "clf", str(source), base)
        assert caught.value.reason == "SYMLINK"

    def test_published_format_is_for_push(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_tiny_adapter(base.folder, tmp_path / "a", added_tokens=2)
        with pytest.raises(InvalidError, match="registry push"):
            import_folder(registry, "clf", str(source), base)

    def test_absent_source(self, registry: Registry, base: ResolvedBase) -> None:
        for source in ("absent", "dir:/absent", "/absent/folder"):
            with pytest.raises((NotFoundError, InvalidError)):
                import_folder(registry, "clf", source, base)

    def test_full_checkpoint(self, registry: Registry, base: ResolvedBase, tiny_base: Path) -> None:
        done = import_folder(registry, "full", f"dir:{tiny_base}", base)
        assert done.revision is not None
        assert done.revision.manifest.kind == "full"
        assert done.revision.manifest.base == base.identity


class TestExport:
    @pytest.mark.parametrize(("architecture", "tied"), [("qwen2", True), ("llama", False)])
    def test_peft_loads_it_with_its_new_tokens(
        self, registry: Registry, tmp_path: Path, architecture: Any, tied: bool
    ) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        folder = make_tiny_base(tmp_path / "base", architecture=architecture, tied=tied)
        base = resolve_base(f"dir:{folder}", registry)
        source = make_tiny_adapter(folder, tmp_path / "adapter", added_tokens=2)
        revision = push_folder(registry, "clf", source, base, task=TASK)
        notes = export_peft(registry, revision, folder, tmp_path / "out")
        assert "at least 322 rows" in notes[0]
        ids = torch.tensor([[5, 320, 60, 321]])
        with torch.no_grad():
            tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "out"))
            got = tuned(ids).logits
            expected_model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(source))
            rows = load_file(source / "new_tokens.safetensors")
            expected_model.get_input_embeddings().weight[320:322] = torch.tensor(rows["input_rows"])
            expected_model.get_output_embeddings().weight[320:322] = torch.tensor(rows["output_rows"])
            expected = expected_model(ids).logits
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert json.loads((tmp_path / "out" / "task.json").read_text()) == TASK

    def test_what_goes_out_comes_back_the_same(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_tiny_adapter(base.folder, tmp_path / "adapter", added_tokens=2, dtype="bfloat16")
        revision = push_folder(registry, "clf", source, base, task=TASK)
        export_peft(registry, revision, base.folder, tmp_path / "out")
        back = import_folder(registry, "back", str(tmp_path / "out"), base, task=TASK).revision
        assert back is not None
        from safetensors.torch import load_file as load

        for name in ("adapter_model.safetensors", "new_tokens.safetensors"):
            before, after = (load(registry.local(side) / name) for side in (revision, back))
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key], after[key]) for key in before)

    @pytest.mark.parametrize(("architecture", "tied"), [("qwen2", True), ("llama", False)])
    @pytest.mark.parametrize("wide", [(), ("embed_tokens",), ("embed_tokens", "lm_head")])
    @pytest.mark.filterwarnings("ignore")
    def test_new_tokens_beside_lora_on_the_whole_embedding(
        self, registry: Registry, tmp_path: Path, architecture: Any, tied: bool, wide: tuple[str, ...]
    ) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        folder = make_tiny_base(tmp_path / "base", architecture=architecture, tied=tied)
        base = resolve_base(f"dir:{folder}", registry)
        source = make_tiny_adapter(folder, tmp_path / "adapter", added_tokens=2, whole=wide)
        rows = load_file(source / "new_tokens.safetensors")
        # Rows that differ on both sides, which PEFT cannot train on a tied base.
        save_file(rows | {"output_rows": rows["output_rows"] * 2}, source / "new_tokens.safetensors")
        revision = push_folder(registry, "clf", source, base, task=TASK)
        export_peft(registry, revision, folder, tmp_path / "out")
        back = import_folder(registry, "back", str(tmp_path / "out"), base, task=TASK).revision
        assert back is not None

        def answer(adapter: Path) -> Any:
            model = AutoModelForCausalLM.from_pretrained(folder)
            if (adapter / "new_tokens.safetensors").exists():
                new = load_file(adapter / "new_tokens.safetensors")
                head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
                head.weight = torch.nn.Parameter(model.get_output_embeddings().weight.detach().clone())
                model.config.tie_word_embeddings = False
                model.set_output_embeddings(head)
                with torch.no_grad():
                    model.get_input_embeddings().weight[new["ids"]] = torch.tensor(new["input_rows"])
                    head.weight[new["ids"]] = torch.tensor(new["output_rows"])
            with torch.no_grad():
                return PeftModel.from_pretrained(model, str(adapter))(torch.tensor([[5, 320, 60, 321]])).logits

        expected = answer(source)
        torch.testing.assert_close(answer(tmp_path / "out"), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(answer(registry.local(back)), expected, atol=1e-4, rtol=1e-5)

    def test_base_is_no_adapter(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        with pytest.raises(PreconditionError) as caught:
            export_peft(registry, registry.resolve("tiny"), base.folder, tmp_path / "out")
        assert caught.value.reason == "NOT_AN_ADAPTER"


class TestBundle:
    @pytest.fixture
    def revision(self, registry: Registry, tmp_path: Path) -> Revision:
        """A small revision."""
        return push(registry, tmp_path / "a")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Registry:
        """A registry elsewhere, with a cache of its own."""
        return Registry.init(tmp_path / "other", cache=tmp_path / "other-cache")

    def test_moves_a_revision_with_its_digest(
        self, registry: Registry, revision: Revision, other: Registry, tmp_path: Path
    ) -> None:
        write_bundle(registry, revision, tmp_path / "clf.tar")
        got = read_bundle(other, tmp_path / "clf.tar", alias="prod")
        assert (got.name, got.number, got.digest) == ("clf", 1, revision.digest)
        assert other.resolve("clf@prod") == got
        assert other.verify().clean
        other.pull(got, tmp_path / "out")
        assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (
            tmp_path / "a" / "adapter_model.safetensors"
        ).read_bytes()
        assert read_bundle(other, tmp_path / "clf.tar", "renamed").digest == revision.digest

    def test_equal_revisions_give_equal_bytes(self, registry: Registry, revision: Revision, tmp_path: Path) -> None:
        for name in ("one.tar", "two.tar"):
            write_bundle(registry, revision, tmp_path / name)
        assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
        with pytest.raises(PreconditionError, match="exists"):
            write_bundle(registry, revision, tmp_path / "one.tar")

    def test_any_changed_byte_of_content_is_noticed(
        self, registry: Registry, revision: Revision, other: Registry, tmp_path: Path
    ) -> None:
        write_bundle(registry, revision, tmp_path / "clf.tar")
        content = (tmp_path / "clf.tar").read_bytes()
        with tarfile.open(tmp_path / "clf.tar") as archive:
            places = {member.name: member.offset_data for member in archive if member.name != "bundle.json"}
        assert len(places) == 3
        for place in places.values():
            changed = bytearray(content)
            changed[place + 5] ^= 1
            (tmp_path / "bad.tar").write_bytes(bytes(changed))
            with pytest.raises(DamagedError):
                read_bundle(other, tmp_path / "bad.tar")
        assert other.names() == []

    @pytest.mark.parametrize("length", [0, 100, 600, 2000])
    def test_cut_or_foreign_file_is_no_bundle(
        self, registry: Registry, revision: Revision, other: Registry, tmp_path: Path, length: int
    ) -> None:
        write_bundle(registry, revision, tmp_path / "clf.tar")
        (tmp_path / "cut.tar").write_bytes((tmp_path / "clf.tar").read_bytes()[:length])
        with pytest.raises((InvalidError, DamagedError)):
            read_bundle(other, tmp_path / "cut.tar")
        assert other.names() == []

    def test_hostile_members_reach_nothing(
        self, registry: Registry, revision: Revision, other: Registry, tmp_path: Path
    ) -> None:
        write_bundle(registry, revision, tmp_path / "clf.tar")
        secret = tmp_path / "secret"
        secret.write_text("secret")
        with tarfile.open(tmp_path / "clf.tar") as archive, tarfile.open(tmp_path / "bad.tar", "w") as bad:
            for member in archive:
                if member.name == "files/adapter_config.json":
                    link = tarfile.TarInfo(member.name)
                    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
                    bad.addfile(link)
                else:
                    bad.addfile(member, archive.extractfile(member))
        with pytest.raises(InvalidError, match="plain file"):
            read_bundle(other, tmp_path / "bad.tar")
        with tarfile.open(tmp_path / "clf.tar", "a") as more:
            climber = tarfile.TarInfo("../climbed")
            climber.size = 1
            more.addfile(climber, io.BytesIO(b"x"))
        with pytest.raises(InvalidError, match="climbed"):
            read_bundle(other, tmp_path / "clf.tar")
        assert not list(tmp_path.rglob("climbed"))
        assert other.names() == []


class TestCompare:
    def test_equal_content_differs_in_nothing(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_tiny_adapter(base.folder, tmp_path / "a")
        one, two = (push_folder(registry, "clf", source, base) for _ in range(2))
        found = compare(registry, one, two)
        assert (found.fields, found.files) == ({}, {})
        assert max(module.relative for module in found.modules) < 1e-6

    def test_norms_are_those_of_the_products(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        one = push_folder(registry, "clf", make_tiny_adapter(base.folder, tmp_path / "a", rank=4, seed=1), base)
        two = push_folder(registry, "clf", make_tiny_adapter(base.folder, tmp_path / "b", rank=8, seed=2), base)
        found = compare(registry, one, two)
        assert found.fields["lora.rank"] == (4, 8)
        assert set(found.files) == {"adapter_config.json", "adapter_model.safetensors"}
        products = []
        for folder in ("a", "b"):
            content = load_file(tmp_path / folder / "adapter_model.safetensors")
            stem = "base_model.model.model.layers.1.mlp.up_proj"
            products.append(content[f"{stem}.lora_B.weight"] @ content[f"{stem}.lora_A.weight"])
        module = next(m for m in found.modules if m.module == "model.layers.1.mlp.up_proj")
        expected = [np.linalg.norm(p) for p in (*products, products[0] - products[1])]
        np.testing.assert_allclose([module.left, module.right, module.difference], expected, rtol=1e-5)

    def test_fields_of_recipe_and_task(self, registry: Registry, base: ResolvedBase, tmp_path: Path) -> None:
        source = make_tiny_adapter(base.folder, tmp_path / "a")
        one = push_folder(registry, "clf", source, base, provenance={"recipe": {"lr": 0.1, "seed": 1}})
        two = push_folder(registry, "clf", source, base, provenance={"recipe": {"lr": 0.2, "seed": 1}, "data": "d"})
        found = compare(registry, one, two)
        assert found.fields == {"provenance.recipe.lr": (0.1, 0.2), "provenance.data": (None, "d")}

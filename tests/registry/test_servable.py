"""Malformed adapters: every defect has its own reason, and the same adapter without it passes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loradeck_registry.bases.identity import identify_base
from loradeck_registry.errors import PreconditionError
from loradeck_registry.files import describe, folder_files
from loradeck_registry.manifest import Lora, Manifest
from loradeck_registry.servability.adapter import AdapterFacts, BaseShapes, check_adapter, read_shapes

pytest.importorskip("torch", reason="needs the train extra")
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def shapes(tiny_base: Path) -> BaseShapes:
    """Shapes of the tiny base."""
    return read_shapes(tiny_base)


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """A good adapter of rank 8 with two added tokens."""
    from tests.support.tiny import make_tiny_adapter

    return make_tiny_adapter(tiny_base, tmp_path / "adapter", rank=8, added_tokens=2)


def task(shapes: BaseShapes, count: int = 2) -> dict[str, Any]:
    """The part of a task that matters here."""
    return {"added_tokens": [{"content": f"<t{n}>", "id": shapes.vocabulary + n} for n in range(count)]}


def config(**changes: Any) -> Change:
    """Change keys of adapter_config.json."""

    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change: Callable[[dict[str, np.ndarray]], None], file: str = "adapter_model.safetensors") -> Change:
    """Change the tensors of a file in place."""

    def apply(folder: Path) -> None:
        content = load_file(folder / file)
        change(content)
        save_file({name: np.ascontiguousarray(value) for name, value in content.items()}, folder / file)

    return apply


def new_rows(change: Callable[[dict[str, np.ndarray]], None]) -> Change:
    """Change new_tokens.safetensors."""
    return tensors(change, "new_tokens.safetensors")


def rename(content: dict[str, np.ndarray], old: str, new: str) -> None:
    """Rename every tensor that contains `old`."""
    for name in [name for name in content if old in name]:
        content[name.replace(old, new)] = content.pop(name)


def cut(file: str, length: int) -> Change:
    """Cut a file's end off."""
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-length]) and None


def put(name: str, content: bytes) -> Change:
    """Write a file."""
    return lambda folder: (folder / name).write_bytes(content) and None


def link(folder: Path) -> None:
    """Replace a file by a link to itself elsewhere."""
    path = folder / "adapter_model.safetensors"
    path.rename(folder.parent / "elsewhere.safetensors")
    path.symlink_to(folder.parent / "elsewhere.safetensors")


def poison(value: float) -> Callable[[dict[str, np.ndarray]], None]:
    """Put one bad value into one tensor."""

    def change(content: dict[str, np.ndarray]) -> None:
        content[f"{Q0}.lora_B.weight"][3, 1] = value

    return change


def recast(name: str, kind: type[np.generic]) -> Callable[[dict[str, np.ndarray]], None]:
    """Store one tensor in another type."""
    return lambda content: content.update({name: content[name].astype(kind)})


def recast_all(kind: type[np.generic]) -> Callable[[dict[str, np.ndarray]], None]:
    """Store all tensors in another type."""
    return lambda content: content.update({name: value.astype(kind) for name, value in content.items()})


DEFECTS: dict[str, tuple[str, Change]] = {
    "names with another prefix": ("NAME_MISMATCH", tensors(lambda t: rename(t, "base_model.model.model.", "model."))),
    "module that the base lacks": ("NAME_MISMATCH", tensors(lambda t: rename(t, "layers.1.", "layers.7."))),
    "target that the base lacks": ("NAME_MISMATCH", config(target_modules=["q_proj", "query_key_value"])),
    "B of the wrong width": (
        "SHAPE_MISMATCH",
        tensors(lambda t: t.update({f"{Q0}.lora_B.weight": t[f"{Q0}.lora_B.weight"][:-1]})),
    ),
    "A and B swapped": (
        "SHAPE_MISMATCH",
        tensors(
            lambda t: rename(t, "lora_A", "lora_X") or rename(t, "lora_B", "lora_A") or rename(t, "lora_X", "lora_B")
        ),
    ),  # type: ignore[func-returns-value]
    "rank other than stated": ("SHAPE_MISMATCH", config(r=4, lora_alpha=4)),
    "rank over the limit": ("RANK_TOO_LARGE", config(r=64, lora_alpha=64)),
    "NaN": ("NOT_FINITE", tensors(poison(float("nan")))),
    "infinity": ("NOT_FINITE", tensors(poison(float("-inf")))),
    "one tensor in another type": ("DTYPE", tensors(recast(f"{Q0}.lora_A.weight", np.float16))),
    "double precision": ("DTYPE", tensors(recast_all(np.float64))),
    "integers": ("DTYPE", tensors(recast_all(np.int8))),
    "skipped embedding rows": (
        "LEFTOVER_TENSOR",
        tensors(
            lambda t: t.update({"base_model.model.model.embed_tokens.base_layer.weight": t[f"{Q0}.lora_A.weight"]})
        ),
    ),
    "DoRA magnitude": (
        "LEFTOVER_TENSOR",
        tensors(lambda t: t.update({f"{Q0}.lora_magnitude_vector": t[f"{Q0}.lora_A.weight"]})),
    ),
    "tensors of a module not targeted": ("LEFTOVER_TENSOR", config(target_modules=["q_proj"])),
    "B missing": ("MISSING_TENSOR", tensors(lambda t: t.pop(f"{Q0}.lora_B.weight") is None or None)),
    "a layer missing": (
        "MISSING_TENSOR",
        tensors(lambda t: [t.pop(n) for n in list(t) if "layers.1." in n] and None),
    ),
    "empty tensor": (
        "EMPTY_TENSOR",
        tensors(lambda t: t.update({f"{Q0}.lora_A.weight": np.zeros((0,), np.float32)})),
    ),
    "no tensors": ("EMPTY_TENSOR", tensors(lambda t: t.clear())),
    "end of the file missing": ("TRUNCATED", cut("adapter_model.safetensors", 100)),
    "header cut": ("TRUNCATED", put("adapter_model.safetensors", (10_000).to_bytes(8, "little") + b"{")),
    "forty bytes": ("NOT_SAFETENSORS", put("adapter_model.safetensors", b"\0" * 7)),
    "a pickle under the right name": ("NOT_SAFETENSORS", put("adapter_model.safetensors", b"\x80\x04\x95" + b"." * 64)),
    "bytes after the end": (
        "NOT_SAFETENSORS",
        lambda f: put("adapter_model.safetensors", (f / "adapter_model.safetensors").read_bytes() + b"x")(f),
    ),
    "a pickle beside it": ("FILE_NOT_ALLOWED", put("adapter_model.bin", b"\x80\x04.")),
    "code beside it": ("FILE_NOT_ALLOWED", put("modeling.py", b"print()")),
    "weights of another kind beside it": (
        "FILE_NOT_ALLOWED",
        lambda f: put("embeddings.safetensors", (f / "new_tokens.safetensors").read_bytes())(f),
    ),
    "symbolic link": ("SYMLINK", link),
    "no configuration": ("MISSING_FILE", lambda folder: (folder / "adapter_config.json").unlink()),
    "no weights": ("MISSING_FILE", lambda folder: (folder / "adapter_model.safetensors").unlink()),
    "configuration is no JSON": ("CONFIG_UNSUPPORTED", put("adapter_config.json", b"{")),
    "another method": ("CONFIG_UNSUPPORTED", config(peft_type="IA3")),
    "alpha is not the rank": ("CONFIG_UNSUPPORTED", config(lora_alpha=16)),
    "rsLoRA": ("CONFIG_UNSUPPORTED", config(use_rslora=True)),
    "DoRA": ("CONFIG_UNSUPPORTED", config(use_dora=True)),
    "rank pattern": ("CONFIG_UNSUPPORTED", config(rank_pattern={"q_proj": 4})),
    "alpha pattern": ("CONFIG_UNSUPPORTED", config(alpha_pattern={"q_proj": 4})),
    "bias": ("CONFIG_UNSUPPORTED", config(bias="lora_only")),
    "modules to save": ("CONFIG_UNSUPPORTED", config(modules_to_save=["lm_head"])),
    "trainable tokens": ("CONFIG_UNSUPPORTED", config(trainable_token_indices=[1])),
    "targets as a pattern": ("CONFIG_UNSUPPORTED", config(target_modules="all-linear")),
    "PiSSA start": ("CONFIG_UNSUPPORTED", config(init_lora_weights="pissa_niter_4")),
    "new rows missing": ("NEW_TOKENS", lambda folder: (folder / "new_tokens.safetensors").unlink()),
    "new rows of another width": (
        "NEW_TOKENS",
        new_rows(lambda t: t.update({"input_rows": t["input_rows"][:, :-1]})),
    ),
    "new row for a token of the base": ("NEW_TOKENS", new_rows(lambda t: t.update({"ids": t["ids"] - 1}))),
    "new row past the embedding": ("NEW_TOKENS", new_rows(lambda t: t.update({"ids": t["ids"] + 63}))),
    "new row twice": ("NEW_TOKENS", new_rows(lambda t: t.update({"ids": t["ids"] * 0 + t["ids"][0]}))),
    "new rows other than the task's": ("NEW_TOKENS", new_rows(lambda t: t.update({"ids": t["ids"] + 1}))),
    "output rows missing": ("NEW_TOKENS", new_rows(lambda t: t.pop("output_rows") is None or None)),
    "tied while training": ("CONFIG_UNSUPPORTED", config(ensure_weight_tying=True)),
    "NaN in a new row": ("NOT_FINITE", new_rows(lambda t: t["output_rows"].__setitem__((0, 0), np.nan))),
}


EMBED, HEAD = "base_model.model.model.embed_tokens.lora_embedding_", "base_model.model.lm_head.lora_"


def cut_rows(count: int) -> Callable[[dict[str, np.ndarray]], None]:
    """Keep so many rows of the LoRA on embedding and head."""

    def change(content: dict[str, np.ndarray]) -> None:
        content[f"{EMBED}A"] = content[f"{EMBED}A"][:, :count]
        content[f"{HEAD}B.weight"] = content[f"{HEAD}B.weight"][:count]

    return change


def put_in(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change one tensor."""
    return tensors(lambda content: content.update({name: change(content[name])}))


def with_infinity(array: np.ndarray) -> np.ndarray:
    """The array with its last value infinite."""
    array = array.copy()
    array.flat[-1] = np.inf
    return array


WHOLE_DEFECTS: dict[str, tuple[str, Change]] = {
    "half of the embedding missing": ("MISSING_TENSOR", tensors(lambda t: t.pop(f"{EMBED}B") is None or None)),
    "half of the head missing": ("MISSING_TENSOR", tensors(lambda t: t.pop(f"{HEAD}A.weight") is None or None)),
    "embedding stated and absent": ("MISSING_TENSOR", tensors(lambda t: [t.pop(f"{EMBED}{s}") for s in "AB"] and None)),
    "head stated and absent": (
        "MISSING_TENSOR",
        tensors(lambda t: [t.pop(f"{HEAD}{s}.weight") for s in "AB"] and None),
    ),
    "embedding not stated": (
        "LEFTOVER_TENSOR",
        lambda f: config(target_modules=[t for t in stated_targets(f) if t != "embed_tokens"])(f),
    ),
    "head not stated": (
        "LEFTOVER_TENSOR",
        lambda f: config(target_modules=[t for t in stated_targets(f) if t != "lm_head"])(f),
    ),
    "embedding as a linear layer": (
        "NAME_MISMATCH",
        tensors(lambda t: rename(t, f"{EMBED}A", "base_model.model.model.embed_tokens.lora_A.weight")),
    ),
    "head as an embedding": (
        "NAME_MISMATCH",
        tensors(lambda t: rename(t, f"{HEAD}A.weight", "base_model.model.lm_head.lora_embedding_A")),
    ),
    "embedding under another name": ("NAME_MISMATCH", tensors(lambda t: rename(t, "embed_tokens", "wte"))),
    "embedding's A transposed": ("SHAPE_MISMATCH", put_in(f"{EMBED}A", lambda a: a.T)),
    "embedding of another width": ("SHAPE_MISMATCH", put_in(f"{EMBED}B", lambda b: b[:-1])),
    "head of another width": ("SHAPE_MISMATCH", put_in(f"{HEAD}A.weight", lambda a: a[:, :-1])),
    "embedding of another rank": (
        "SHAPE_MISMATCH",
        tensors(lambda t: t.update({f"{EMBED}A": t[f"{EMBED}A"][:4], f"{EMBED}B": t[f"{EMBED}B"][:, :4]})),
    ),
    "head of another rank": (
        "SHAPE_MISMATCH",
        tensors(lambda t: t.update({f"{HEAD}A.weight": t[f"{HEAD}A.weight"][:4],
                                    f"{HEAD}B.weight": t[f"{HEAD}B.weight"][:, :4]})),
    ),
    "fewer rows than tokens": ("SHAPE_MISMATCH", tensors(cut_rows(319))),
    "rows up to the base's tokens, not the added ones": ("SHAPE_MISMATCH", tensors(cut_rows(320))),
    "more rows than the base": (
        "SHAPE_MISMATCH",
        put_in(f"{EMBED}A", lambda a: np.concatenate([a, a[:, :1]], axis=1)),
    ),
    "other rows on the head": ("SHAPE_MISMATCH", put_in(f"{HEAD}B.weight", lambda b: b[:-1])),
    "NaN in the embedding": ("NOT_FINITE", put_in(f"{EMBED}A", lambda a: a * np.float32("nan"))),
    "infinity in the head": ("NOT_FINITE", put_in(f"{HEAD}B.weight", with_infinity)),
    "embedding in another type": ("DTYPE", put_in(f"{EMBED}B", lambda b: b.astype(np.float16))),
    "empty embedding": ("EMPTY_TENSOR", put_in(f"{EMBED}A", lambda a: a[:0])),
    "whole embedding beside it": (
        "LEFTOVER_TENSOR",
        tensors(lambda t: t.update({"base_model.model.lm_head.base_layer.weight": t[f"{HEAD}A.weight"]})),
    ),
}  # fmt: skip


def stated_targets(folder: Path) -> list[str]:
    """`target_modules` of an adapter."""
    return list(json.loads((folder / "adapter_config.json").read_text())["target_modules"])


class TestWholeEmbedding:
    @pytest.fixture(scope="class", params=[True, False], ids=["tied", "untied"])
    def base(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A base with and without a head of its own."""
        from tests.support.tiny import make_tiny_base

        return make_tiny_base(tmp_path_factory.mktemp("base"), "qwen2" if request.param else "llama", request.param)

    @staticmethod
    def make(base: Path, folder: Path, whole: tuple[str, ...] = ("embed_tokens", "lm_head")) -> Path:
        """A good adapter with LoRA on embedding and head and two added tokens."""
        from tests.support.tiny import make_tiny_adapter

        return make_tiny_adapter(base, folder, rank=8, added_tokens=2, whole=whole)

    @pytest.mark.parametrize("defect", WHOLE_DEFECTS)
    def test_defect_is_refused_with_its_reason(self, defect: str, base: Path, tmp_path: Path) -> None:
        adapter, shapes = self.make(base, tmp_path / "adapter"), read_shapes(base)
        check_adapter(adapter, task(shapes), shapes, max_rank=8)
        reason, change = WHOLE_DEFECTS[defect]
        change(adapter)
        with pytest.raises(PreconditionError) as caught:
            check_adapter(adapter, task(shapes), shapes, max_rank=8)
        assert caught.value.reason == reason
        assert "\n" not in caught.value.message

    @pytest.mark.parametrize("whole", [("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head")])
    def test_one_side_is_an_adapter_too(self, whole: tuple[str, ...], base: Path, tmp_path: Path) -> None:
        adapter, shapes = self.make(base, tmp_path / "adapter", whole), read_shapes(base)
        facts = check_adapter(adapter, task(shapes), shapes)
        assert {*facts.target_modules} == {*shapes.leaves, *whole}

    def test_rows_up_to_the_last_token_are_enough(self, base: Path, tmp_path: Path) -> None:
        """An adapter of the original serves on a copy with more reserved rows."""
        adapter, shapes = self.make(base, tmp_path / "adapter"), read_shapes(base)
        tensors(cut_rows(322))(adapter)
        check_adapter(adapter, task(shapes), shapes)


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_refused_with_its_reason(defect: str, adapter: Path, shapes: BaseShapes) -> None:
    check_adapter(adapter, task(shapes), shapes, max_rank=16)
    reason, change = DEFECTS[defect]
    change(adapter)
    with pytest.raises(PreconditionError) as caught:
        check_adapter(adapter, task(shapes), shapes, max_rank=16)
    assert caught.value.reason == reason
    assert "\n" not in caught.value.message
    assert str(adapter.parent) not in caught.value.message


def test_facts_of_a_good_adapter(adapter: Path, shapes: BaseShapes) -> None:
    facts = check_adapter(adapter, task(shapes), shapes, max_rank=8)
    weights = load_file(adapter / "adapter_model.safetensors")
    rows = load_file(adapter / "new_tokens.safetensors")
    assert facts == AdapterFacts(
        rank=8,
        dtype="float32",
        target_modules=("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"),
        parameters=sum(t.size for t in weights.values()) + rows["input_rows"].size + rows["output_rows"].size,
        bytes=sum((adapter / name).stat().st_size for name in ("adapter_model.safetensors", "new_tokens.safetensors")),
        added_token_ids=(shapes.vocabulary, shapes.vocabulary + 1),
    )


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC1, 0xFF81])
def test_bfloat16_is_checked_by_its_bits(tiny_base: Path, tmp_path: Path, shapes: BaseShapes, bits: int) -> None:
    from tests.support.tiny import make_tiny_adapter

    adapter = make_tiny_adapter(tiny_base, tmp_path / "adapter", dtype="bfloat16")
    assert check_adapter(adapter, {}, shapes).dtype == "bfloat16"
    path = adapter / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    largest_finite = 0x7F7F
    content[-2:] = largest_finite.to_bytes(2, "little")
    path.write_bytes(bytes(content))
    check_adapter(adapter, {}, shapes)
    content[-2:] = bits.to_bytes(2, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(PreconditionError) as caught:
        check_adapter(adapter, {}, shapes)
    assert caught.value.reason == "NOT_FINITE"


def test_new_rows_alone_are_an_adapter(adapter: Path, shapes: BaseShapes) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    config(r=0, lora_alpha=0, target_modules=[])(adapter)
    facts = check_adapter(adapter, task(shapes), shapes)
    assert (facts.rank, len(facts.added_token_ids)) == (0, 2)
    (adapter / "new_tokens.safetensors").unlink()
    with pytest.raises(PreconditionError) as caught:
        check_adapter(adapter, {}, shapes)
    assert caught.value.reason == "MISSING_FILE"


def test_adapter_of_some_modules_is_complete_with_those(adapter: Path, shapes: BaseShapes) -> None:
    def keep(content: dict[str, np.ndarray]) -> None:
        for name in [name for name in content if "q_proj" not in name and "down_proj" not in name]:
            del content[name]

    tensors(keep)(adapter)
    config(target_modules=["q_proj", "down_proj"])(adapter)
    assert check_adapter(adapter, task(shapes), shapes).target_modules == ("down_proj", "q_proj")


class TestManifest:
    @pytest.fixture
    def manifest(self, adapter: Path, tiny_base: Path, shapes: BaseShapes) -> Manifest:
        """The manifest that fits the adapter."""
        facts = check_adapter(adapter, task(shapes), shapes)
        lora = Lora(rank=8, alpha=8, target_modules=facts.target_modules, dtype="float32")
        return Manifest(
            kind="adapter",
            base=identify_base(tiny_base, "tiny"),
            lora=lora,
            files=describe(folder_files(adapter)),
            task=task(shapes),
            create_time=datetime.now(UTC),
        )

    def test_adapter_of_this_base_passes(self, manifest: Manifest, adapter: Path, tiny_base: Path) -> None:
        check_adapter(adapter, manifest, read_shapes(tiny_base, identify_base(tiny_base, "x")))

    def test_adapter_of_another_base_is_refused(self, manifest: Manifest, adapter: Path, tmp_path: Path) -> None:
        from tests.support.tiny import make_tiny_base

        other = make_tiny_base(tmp_path / "other", seed=1)
        with pytest.raises(PreconditionError) as caught:
            check_adapter(adapter, manifest, read_shapes(other, identify_base(other, "other")))
        assert caught.value.reason == "BASE_MISMATCH"
        assert caught.value.metadata == {"trained_on": "tiny", "base": "other"}

    def test_full_checkpoint_is_no_adapter(self, manifest: Manifest, adapter: Path, tiny_base: Path) -> None:
        full = Manifest.model_validate(manifest.model_dump() | {"kind": "full", "lora": None})
        with pytest.raises(PreconditionError) as caught:
            check_adapter(adapter, full, read_shapes(tiny_base, identify_base(tiny_base, "x")))
        assert caught.value.reason == "BASE_MISMATCH"

    def test_manifest_that_states_other_settings(self, manifest: Manifest, adapter: Path, shapes: BaseShapes) -> None:
        lora = Lora(rank=4, alpha=4, target_modules=("q_proj",), dtype="float32")
        with pytest.raises(PreconditionError) as caught:
            check_adapter(adapter, manifest.model_copy(update={"lora": lora}), shapes)
        assert caught.value.reason == "MANIFEST_MISMATCH"

"""Conversion: what PEFT computes with the original folder, it computes with the published one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loradeck_registry.bases.reserve import reserve_rows
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError
from loradeck_registry.servability.adapter import check_adapter, read_shapes
from loradeck_registry.transfer.conversion import Conversion, convert_adapter
from tests.support.tiny import make_tiny_adapter, make_tiny_base

torch = pytest.importorskip("torch", reason="needs the train extra")
IDS = [[5, 60, 200, 7, 33, 12]]


def model_of(base: Path) -> Any:
    """A fresh base model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base)


def logits(base: Path, adapter: Path | None, ids: list[list[int]] = IDS) -> Any:
    """PEFT's logits for `ids`, of the base without an adapter."""
    from peft import PeftModel

    model = model_of(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits


def make_peft(base: Path, folder: Path, **settings: Any) -> Path:
    """A random PEFT adapter saved as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    fields = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    model = get_peft_model(model_of(base), LoraConfig(**(fields | settings)))
    model.save_pretrained(str(folder))
    return folder


def convert(base: Path, source: Path, folder: Path, **settings: Any) -> Conversion:
    """Convert, and check as a server would."""
    shapes = read_shapes(base)
    result = convert_adapter(source, base, shapes, folder, **settings)
    check_adapter(folder, {"added_tokens": [{"id": number} for number in result.added_tokens]}, shapes)
    return result


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "scale 3 folded"),
        ({"lora_alpha": 4}, "left out"),
        ({"use_rslora": True, "lora_alpha": 5}, "scale 2.5 folded"),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 1}}, "padded"),
        ({"rank_pattern": {"layers.0.mlp.down_proj": 8}}, "padded"),
        ({"layers_to_transform": [1]}, "filled with zeros"),
        ({"target_modules": r".*layers\.0.*\.(k|v)_proj"}, "filled with zeros"),
        ({"target_modules": "all-linear"}, "scale 3"),
        ({"init_lora_weights": "orthogonal"}, "scale 3"),
    ],
)
def test_converted_adapter_computes_the_same(
    tiny_base: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    source = make_peft(tiny_base, tmp_path / "peft", **settings)
    before = logits(tiny_base, source)
    assert not torch.allclose(before, logits(tiny_base, None), atol=1e-2) or "orthogonal" in settings.values()
    result = convert(tiny_base, source, tmp_path / "published")
    assert any(words in finding for finding in result.findings), result.findings
    torch.testing.assert_close(logits(tiny_base, tmp_path / "published"), before, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["lm_head"], "use_rslora": True},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "rank_pattern": {"embed_tokens": 7, "q_proj": 2}},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=["embedding", "head alone", "both at ranks of their own", "one pair for a tied matrix"],
)
@pytest.mark.parametrize(("architecture", "tied"), [("qwen2", True), ("llama", False)])
@pytest.mark.filterwarnings("ignore")
def test_lora_on_the_whole_embedding_is_kept(
    tmp_path: Path, settings: dict[str, Any], architecture: Any, tied: bool
) -> None:
    base = make_tiny_base(tmp_path / "base", architecture, tied)
    source = make_peft(base, tmp_path / "peft", **settings)
    before = logits(base, source)
    assert (before - logits(base, None)).abs().max() > 0.5
    convert(base, source, tmp_path / "published")
    torch.testing.assert_close(logits(base, tmp_path / "published"), before, atol=1e-4, rtol=1e-5)
    written = load_file(tmp_path / "published" / "adapter_model.safetensors")
    both = {"embed_tokens", "lm_head"} <= set(settings["target_modules"]) or (
        "ensure_weight_tying" in settings and tied
    )
    assert any("lm_head" in name for name in written) == (both or settings["target_modules"] == ["lm_head"])


@pytest.mark.filterwarnings("ignore")
def test_lora_on_more_or_fewer_rows_than_the_base_has(tmp_path: Path) -> None:
    narrow, wide = make_tiny_base(tmp_path / "narrow", reserved=8), tmp_path / "wide"
    files = {path.name: path for path in narrow.iterdir()}
    for name, path in reserve_rows(files, narrow, 64, tmp_path / "changed").items():
        wide.mkdir(exist_ok=True)
        shutil.copyfile(path, wide / name)
    of_narrow = make_peft(narrow, tmp_path / "of-narrow", target_modules=["embed_tokens", "lm_head"])
    result = convert(wide, of_narrow, tmp_path / "widened")
    assert any("filled with zeros to the base's 384 rows" in finding for finding in result.findings)
    used = slice(None), slice(None), slice(0, 328)
    torch.testing.assert_close(logits(wide, tmp_path / "widened")[used], logits(narrow, of_narrow), atol=1e-4, rtol=0)
    with pytest.raises(PreconditionError, match="reserve-tokens") as caught:
        convert(narrow, make_peft(wide, tmp_path / "of-wide", target_modules=["embed_tokens"]), tmp_path / "cut")
    assert caught.value.reason == "SHAPE_MISMATCH"


def test_published_format_stays_bit_for_bit(tiny_base: Path, tmp_path: Path) -> None:
    source = make_tiny_adapter(tiny_base, tmp_path / "a", dtype="bfloat16")
    assert convert(tiny_base, source, tmp_path / "b").findings == []
    from safetensors.torch import load_file as load

    before, after = (load(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


@pytest.mark.parametrize(("alpha", "dtype"), [(16, "bfloat16"), (24, "float32")])
def test_fold_that_would_round_is_kept_in_float32(tiny_base: Path, tmp_path: Path, alpha: int, dtype: str) -> None:
    source = make_tiny_adapter(tiny_base, tmp_path / "a", rank=8, dtype="bfloat16")
    config = json.loads((source / "adapter_config.json").read_text()) | {"lora_alpha": alpha}
    (source / "adapter_config.json").write_text(json.dumps(config))
    result = convert(tiny_base, source, tmp_path / "b")
    assert check_adapter(tmp_path / "b", {}, read_shapes(tiny_base)).dtype == dtype
    assert any("would round" in finding for finding in result.findings) == (dtype == "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_precision_asked_for_is_given_and_its_rounding_stated(tiny_base: Path, tmp_path: Path, dtype: str) -> None:
    source = make_tiny_adapter(tiny_base, tmp_path / "a")
    result = convert(tiny_base, source, tmp_path / "b", dtype=dtype)
    assert any(f"rounded to {dtype}" in finding for finding in result.findings)
    from safetensors.torch import load_file as load

    before, after = (load(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert all(torch.equal(before[name].to(getattr(torch, dtype)), after[name]) for name in before)


def test_pissa_becomes_plain_lora_of_twice_the_rank(tiny_base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model_of(tiny_base), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights="pissa")
    )
    model.save_pretrained(str(tmp_path / "start"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        trained = model(torch.tensor(IDS)).logits
    model.save_pretrained(str(tmp_path / "end"))
    with pytest.raises(PreconditionError, match="--initial") as caught:
        convert(tiny_base, tmp_path / "end", tmp_path / "x")
    assert caught.value.reason == "CONFIG_UNSUPPORTED"
    convert(tiny_base, tmp_path / "end", tmp_path / "published", initial=tmp_path / "start")
    assert check_adapter(tmp_path / "published", {}, read_shapes(tiny_base)).rank == 8
    torch.testing.assert_close(logits(tiny_base, tmp_path / "published"), trained, atol=1e-4, rtol=1e-4)


class TestNewTokens:
    def _name_tokens(self, folder: Path) -> None:
        (folder / "added_tokens.json").write_text(json.dumps({"<a>": 320, "<b>": 321}))

    @pytest.fixture(params=[("qwen2", True), ("llama", False)], ids=["tied", "untied"])
    def base(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        architecture, tied = request.param
        return make_tiny_base(tmp_path / "base", architecture=architecture, tied=tied)

    def test_trainable_tokens(self, base: Path, tmp_path: Path) -> None:
        tied = read_shapes(base).tied
        indices = {"embed_tokens": [321, 320]} | ({} if tied else {"lm_head": [321, 320]})
        source = make_peft(base, tmp_path / "peft", trainable_token_indices=indices)
        content = load_file(source / "adapter_model.safetensors")
        rows = {name: value for name, value in content.items() if "token_adapter" in name}
        for number, name in enumerate(sorted(rows)):
            content[name] = np.random.default_rng(number).standard_normal(rows[name].shape).astype(np.float32)
        save_file(content, source / "adapter_model.safetensors")
        self._name_tokens(source)
        result = convert(base, source, tmp_path / "published")
        assert result.added_tokens == {320: "<a>", 321: "<b>"}
        new = load_file(tmp_path / "published" / "new_tokens.safetensors")
        embedding = content["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"]
        head = embedding if tied else content["base_model.model.lm_head.token_adapter.trainable_tokens_delta"]
        assert new["ids"].tolist() == [320, 321]
        np.testing.assert_array_equal(new["input_rows"], embedding[::-1])
        np.testing.assert_array_equal(new["output_rows"], head[::-1])

    @pytest.mark.filterwarnings("ignore")
    def test_whole_matrices_after_a_resize(self, base: Path, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model

        model = model_of(base)
        model.resize_token_embeddings(322)
        settings = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
        peft = get_peft_model(model, settings)
        trained = {}
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "modules_to_save" in name:
                    parameter[320:] = torch.randn(2, 128, generator=torch.Generator().manual_seed(len(trained)))
                    trained["head" if "lm_head" in name else "embedding"] = parameter[320:].numpy().copy()
        peft.save_pretrained(str(tmp_path / "peft"))
        self._name_tokens(tmp_path / "peft")
        result = convert(base, tmp_path / "peft", tmp_path / "published")
        assert result.added_tokens == {320: "<a>", 321: "<b>"}
        new = load_file(tmp_path / "published" / "new_tokens.safetensors")
        np.testing.assert_array_equal(new["input_rows"], trained["embedding"])
        np.testing.assert_array_equal(new["output_rows"], trained["head"])

    def test_changed_row_of_the_base_has_no_exact_form(self, base: Path, tmp_path: Path) -> None:
        source = make_tiny_adapter(base, tmp_path / "a")
        content = load_file(source / "adapter_model.safetensors")
        whole = load_file(base / "model.safetensors")["model.embed_tokens.weight"].copy()
        content["base_model.model.model.embed_tokens.weight"] = whole
        save_file(content, source / "adapter_model.safetensors")
        convert(base, source, tmp_path / "same")
        whole[17, 3] += 1
        save_file(content, source / "adapter_model.safetensors")
        with pytest.raises(PreconditionError, match="own rows") as caught:
            convert(base, source, tmp_path / "changed")
        assert caught.value.reason == "NEW_TOKENS"

    def test_trained_token_of_the_base_has_no_exact_form(self, base: Path, tmp_path: Path) -> None:
        source = make_peft(base, tmp_path / "peft", trainable_token_indices={"embed_tokens": [7]})
        with pytest.raises(PreconditionError, match="tokens of the base") as caught:
            convert(base, source, tmp_path / "published")
        assert caught.value.reason == "NEW_TOKENS"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "CONFIG_UNSUPPORTED"),
        ({"bias": "lora_only"}, "CONFIG_UNSUPPORTED"),
        ({"lora_bias": True}, "CONFIG_UNSUPPORTED"),
        ({"modules_to_save": ["norm"]}, "LEFTOVER_TENSOR"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_exact_form_is_refused(
    tiny_base: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    source = make_peft(tiny_base, tmp_path / "peft", **settings)
    with pytest.raises(PreconditionError) as caught:
        convert(tiny_base, source, tmp_path / "published")
    assert caught.value.reason == reason
    assert "\n" not in caught.value.message


def test_adapter_of_another_shape_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    source = make_peft(tiny_base, tmp_path / "peft")
    content = load_file(source / "adapter_model.safetensors")
    name = next(name for name in content if "lora_A" in name)
    save_file(content | {name: content[name][:, :-1].copy()}, source / "adapter_model.safetensors")
    with pytest.raises(PreconditionError) as caught:
        convert(tiny_base, source, tmp_path / "published")
    assert caught.value.reason == "SHAPE_MISMATCH"


def test_pickle_only_says_what_to_do(tiny_base: Path, tmp_path: Path) -> None:
    source = make_peft(tiny_base, tmp_path / "peft")
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    with pytest.raises(NotFoundError, match="pickle"):
        convert(tiny_base, source, tmp_path / "published")


def test_bad_precision_is_named(tiny_base: Path, tmp_path: Path) -> None:
    source = make_tiny_adapter(tiny_base, tmp_path / "a")
    with pytest.raises(InvalidError, match="int4"):
        convert(tiny_base, source, tmp_path / "b", dtype="int4")

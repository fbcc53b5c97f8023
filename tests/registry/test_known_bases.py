"""Configuration records agree with the published models and with transformers' own modules."""

import pytest

from loradeck_registry.bases.known import KNOWN_BASES, KnownBase, known_base

PUBLISHED = {
    "Qwen/Qwen2-7B": 7_615_616_512,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "huggyllama/llama-13b": 13_015_864_320,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert KNOWN_BASES[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize("base", KNOWN_BASES.values(), ids=lambda base: base.hub)
def test_shapes_are_those_of_transformers(base: KnownBase) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {key: value for key, value in base.config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(base.model_type, **config))
    assert sum(p.numel() for p in model.parameters()) == base.parameters
    found = {n: tuple(m.weight.shape) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    found.pop("lm_head")
    assert found == base.shapes().modules


def test_a_reference_finds_its_record() -> None:
    assert known_base("hub:Qwen/Qwen2-7B@abc") is KNOWN_BASES["Qwen/Qwen2-7B"]
    assert known_base("dir:Qwen/Qwen2-7B") is None

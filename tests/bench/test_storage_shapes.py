"""Sizes from shapes: what the studies state, what PEFT makes, and any configuration."""

import json
from pathlib import Path

import pytest

from loradeck_bench.storage.shapes import (
    ATTENTION,
    TARGETS,
    adapter_parameters,
    by_shape,
    find_base,
    read_base,
    size_rows,
)
from loradeck_bench.storage.studies import CAPACITY, study_figures
from loradeck_registry.bases.known import KnownBase
from loradeck_registry.errors import InvalidError, NotFoundError


def _small(*, tied: bool = False) -> KnownBase:
    return KnownBase("org/small", "llama", 32, 64, 2, 4, 2, 100, 100, 64, tied, False, 1e-5)


def test_figures_of_the_studies_come_out() -> None:
    figures = study_figures()
    assert len(figures) == 9
    for figure in figures:
        assert figure.computed == pytest.approx(figure.stated, rel=0.04), figure
    exact = [figure for figure in figures if figure.computed == figure.stated]
    assert {figure.figure for figure in exact} == {"LoRA on the head, rank 8", "new tokens"}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_that_peft_makes(targets: str, tied: bool) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    base = _small(tied=tied)
    names = [name for name in TARGETS[targets] if not (tied and name == "lm_head")]
    config = {key: value for key, value in base.config.items() if key != "model_type"}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
        made = get_peft_model(model, LoraConfig(r=4, target_modules=names))
    trainable = sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert adapter_parameters(base, 4, TARGETS[targets]) == trainable


def test_new_tokens_count_on_both_sides_of_an_untied_base() -> None:
    assert adapter_parameters(_small(), 4, (), new_tokens=3) == 2 * 3 * 32
    assert adapter_parameters(_small(tied=True), 4, (), new_tokens=3) == 3 * 32


def test_rows_of_a_base() -> None:
    base = find_base("meta-llama/Llama-2-70b-hf")
    rows = size_rows(base, [8, 16], 2, CAPACITY)
    assert [row.kind for row in rows[:3]] == ["base", "full", "adapter"]
    assert rows[1].bytes == base.parameters * 2
    assert rows[1].ratio_to_full == 1
    linear = next(row for row in rows if row.targets == "all linear" and row.rank == 8)
    assert linear.bytes == 2 * linear.parameters
    assert linear.fits == (CAPACITY - rows[0].bytes) // linear.bytes == 685
    assert size_rows(base, [8], 4, CAPACITY)[2].fits < linear.fits


def test_equal_shapes_make_one_table() -> None:
    names = ("meta-llama/Llama-2-7b-hf", "Qwen/Qwen2-7B", "huggyllama/llama-7b")
    tables = [size_rows(find_base(name), [8], 2, CAPACITY) for name in names]
    assert [found for found, _ in by_shape(tables)] == [[names[0], names[2]], [names[1]]]


def test_any_configuration(tmp_path: Path) -> None:
    known = find_base("Qwen/Qwen2.5-1.5B-Instruct")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(known.config)))
    read = read_base(folder / "config.json")
    assert (read.hub, read.parameters) == ("mine", known.parameters)
    assert adapter_parameters(read, 8, ATTENTION) == adapter_parameters(known, 8, ATTENTION)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_type": "gpt2", "hidden_size": 8, "num_attention_heads": 2}']
)
def test_configuration_that_says_too_little_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InvalidError) as caught:
        read_base(path)
    assert "\n" not in caught.value.message


def test_unknown_base_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="meta-llama/Llama-2-7b-hf"):
        find_base("org/unknown")
    with pytest.raises(InvalidError, match="cannot read"):
        read_base(tmp_path / "absent.json")

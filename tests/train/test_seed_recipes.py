"""The studies' recipes train exactly as many parameters as the studies say."""

import pytest

from loradeck_registry.bases.known import known_base
from loradeck_train.plan.parameters import count_parameters
from loradeck_train.recipe.files import load_recipe, shipped_recipes

STUDIES = ("econ-it", "anyscale", "belle", "alpaca")
STATED = {
    "econ-it/clf-lora-rank-8": 1_245_184,  # 152064 x 8 + 8 x 3584, as Table 6 counts
    "econ-it/clf-lora": 80_740_352,
    "belle/7b-lora-600k": 17_891_328,  # "17.9M"
    "belle/7b-lora-4m": 17_891_328,
    "belle/7b-full-2m-math-lora": 17_891_328,
    "belle/13b-lora-2m": 28_016_640,  # "28M"
    "belle/7b-lora-2m-all-linear": 19_988_480,
    "belle/13b-lora-2m-all-linear": 31_293_440,
    "alpaca/qwen2.5-1.5b-lora": 2_179_072,  # "0.14%"
    "anyscale/viggo-7b-lora": 19_988_480,
    "anyscale/viggo-7b-lora-blind": 19_988_480 + 2 * 8 * (32_004 + 4_096),
    "anyscale/size-qv-7b": 4_194_304,
    "anyscale/viggo-70b-lora": 103_546_880,
}


def study_recipes() -> list[str]:
    return [name for name in shipped_recipes() if name.startswith(STUDIES)]


def test_every_run_of_the_studies_has_a_recipe() -> None:
    assert {study: sum(name.startswith(f"{study}/") for name in study_recipes()) for study in STUDIES} == {
        "econ-it": 11,
        "anyscale": 27,
        "belle": 10,
        "alpaca": 3,
    }


@pytest.mark.parametrize("name", STATED)
def test_trained_parameters_are_those_of_the_study(name: str) -> None:
    recipe = load_recipe(name)
    base = known_base(recipe.base_like or recipe.base)
    assert base is not None
    added = len(recipe.task.added_tokens) + (4 if recipe.task.format == "blind" else 0)
    shapes = base.shapes()
    if added > base.rows - base.vocabulary:
        shapes = type(shapes)(shapes.modules, shapes.hidden, shapes.vocabulary, base.vocabulary + added, shapes.tied)
    assert count_parameters(recipe, shapes, base.parameters, added).trained == STATED[name]


@pytest.mark.parametrize("name", study_recipes())
def test_every_base_of_the_studies_is_known(name: str) -> None:
    recipe = load_recipe(name)
    assert known_base(recipe.base_like or recipe.base) is not None
    assert recipe.data.expected is not None


def test_settings_of_the_studies() -> None:
    full, lora = load_recipe("econ-it/clf-full"), load_recipe("econ-it/clf-lora")
    assert (full.optimisation.learning_rate, full.optimisation.warmup_steps, full.max_length) == (2e-5, 10, 1024)
    assert (full.optimisation.batch_size, full.optimisation.gradient_accumulation_steps, full.precision) == (
        1,
        8,
        "bf16",
    )
    assert (lora.adapter.rank, lora.adapter.alpha, lora.adapter.dropout, lora.precision) == (32, 16, 0.05, "fp16")
    assert (lora.optimisation.learning_rate, lora.optimisation.optimizer) == (3e-4, "paged_adamw_8bit")
    assert load_recipe("belle/7b-full-2m-math-full").optimisation.learning_rate == 5e-7
    assert load_recipe("anyscale/sql-7b-lora").optimisation.learning_rate == 3e-5
    alpaca = load_recipe("alpaca/qwen2.5-1.5b-lora")
    assert (alpaca.adapter.alpha, alpaca.max_length, alpaca.optimisation.gradient_accumulation_steps) == (32, 256, 16)
    assert load_recipe("alpaca/qwen2.5-1.5b-qlora").quantization is not None

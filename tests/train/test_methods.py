"""Every method publishes what it trained: the reloaded files answer like the model that was in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from loradeck_registry.errors import InvalidError
from loradeck_registry.servability.adapter import check_adapter, read_shapes
from loradeck_train import run as run_module
from loradeck_train.convert.merge import read_changes
from loradeck_train.model.adapters import lora_layers
from loradeck_train.model.build import build_model
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.model.matrices import is_tied, matrices
from loradeck_train.plan.parameters import count_parameters
from loradeck_train.prepare import prepare
from loradeck_train.publish.changes import Changes
from loradeck_train.publish.export import write_adapter
from loradeck_train.publish.merging import merge_into
from loradeck_train.publish.proof import allowed_ids, load_adapter
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import RunReport, run
from tests.support.tiny import make_tiny_adapter

Build = Callable[..., Recipe]
QUIET = Console(quiet=True)

METHODS: dict[str, dict[str, Any]] = {
    "chosen modules": {"lora": {"target_modules": ["q_proj", "down_proj"]}},
    "rsLoRA": {"lora": {"rslora": True}},
    "LoRA+": {"lora": {"loraplus_ratio": 16}},
    "patterns": {"lora": {"rank_pattern": {"layers.0.*q_proj": 7, "down_proj": 2}, "alpha_pattern": {"up_proj": 3}}},
    "gaussian": {"lora": {"init": "gaussian"}},
    "EVA": {"lora": {"init": "eva"}},
    "PiSSA": {"lora": {"init": "pissa"}},
    "merged": {"publish": {"merged": True}},
    "merged DoRA": {"lora": {"dora": True}, "publish": {"merged": True}},
    "embedding by LoRA": {"lora": {"embeddings": "lora", "rank_pattern": {"embed_tokens": 7}}},
    "embedding by LoRA on bfloat16": {"lora": {"embeddings": "lora"}, "precision": "bf16"},
    "embedding and rows": {"lora": {"embeddings": "both"}},
    "embedding by LoRA, merged": {"lora": {"embeddings": "lora"}, "publish": {"merged": True}},
    "embedding and rows, merged": {"lora": {"embeddings": "both"}, "publish": {"merged": True}},
    "random rows": {"task": {"initial_rows": "random"}},
    "described rows": {"task": {"descriptions": {"bank": "money and loans"}}},
}
EMBEDDED = {name for name, changes in METHODS.items() if "embeddings" in changes.get("lora", {})}


def _compare(recipe: Recipe, folder: Path, tmp_path: Path) -> tuple[RunReport, float, float]:
    """Largest distance of the published files from the model in memory, and of both from the base, in nats."""
    prepared = prepare(recipe, None)
    allowed = allowed_ids(prepared.task, prepared.base.identity.vocabulary)
    prompts = [list(e.prompt) for e in prepared.training[:6]]
    in_memory: list[torch.Tensor] = []
    plain = run_module.export

    def remember(trained: Any, *rest: Any) -> Any:
        in_memory.extend(logprobs_at_end(trained.model, prompts, allowed))
        return plain(trained, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "export", remember)
        report = run(recipe, None, tmp_path / "out", console=QUIET)
    base = load_causal(folder, torch.float32).eval()
    before = logprobs_at_end(base, prompts, allowed)
    if report.manifest.kind == "adapter":
        model = load_adapter(base, report.folder)
    else:
        model = load_causal(report.folder, torch.float32).eval()
    after = torch.stack(logprobs_at_end(model, prompts, allowed))
    moved = float((after - torch.stack(before)).abs().max())
    return report, float((after - torch.stack(in_memory)).abs().max()), moved


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_published_files_are_what_was_trained(
    base: str, name: str, recipe_of: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    changes = METHODS[name]
    short = {"max_steps": 6, "batch_size": 6}
    recipe = recipe_of(**({"base": f"dir:{folder}", "optimisation": short} | changes))
    report, apart, moved = _compare(recipe, folder, tmp_path)
    assert apart < (1.0 if recipe.precision == "bf16" else 2e-3)
    assert moved > (5 if recipe.precision == "bf16" else 100) * apart
    assert report.manifest.kind == recipe.publishes
    if recipe.publishes == "adapter":
        assert report.manifest.lora is not None
        assert report.manifest.lora.rank == recipe.adapter.published_rank
        assert ({"embed_tokens", "lm_head"} <= set(report.manifest.lora.target_modules)) == (name in EMBEDDED)
    elif name in EMBEDDED:
        assert is_tied(load_causal(report.folder, torch.float32)) == (base == "tied_base")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_trained_parameters_are_counted_from_shapes(
    base: str, name: str, recipe_of: Build, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    recipe = recipe_of(**({"base": f"dir:{folder}"} | METHODS[name]))
    prepared = prepare(recipe, None)
    trained = build_model(recipe, folder, prepared.task, 100, prepared.tokenizer, prepared.training)
    counts = count_parameters(recipe, read_shapes(folder), trained.size.parameters, len(prepared.task.added_tokens))
    assert counts.trained == trained.size.trainable_parameters


@pytest.mark.parametrize("name", ["chosen modules", "PiSSA", "embedding by LoRA", "embedding and rows"])
@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_stored_parameters_are_counted_from_shapes(
    base: str, name: str, recipe_of: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    recipe = recipe_of(**({"base": f"dir:{folder}", "optimisation": {"max_steps": 2}} | METHODS[name]))
    shapes = read_shapes(folder)
    facts = check_adapter(run(recipe, None, tmp_path / "out", console=QUIET).folder, None, shapes)
    counts = count_parameters(recipe, shapes, 1, len(facts.added_token_ids))
    assert counts.stored == facts.parameters


def test_merging_leaves_a_side_alone_that_has_no_pair(tied_base: Path, tmp_path: Path) -> None:
    """On a tied base PEFT changes the sides apart; a merge must take them apart as well, and only then."""
    prompt = [[5, 60, 200, 7, 33, 12]]
    shapes = read_shapes(tied_base)
    for number, whole in enumerate((("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head"))):
        adapter = make_tiny_adapter(tied_base, tmp_path / str(number), whole=whole)
        expected = load_adapter(load_causal(tied_base, torch.float32).eval(), adapter)
        allowed = torch.arange(shapes.vocabulary)
        merged = merge_into(tied_base, read_changes(adapter, shapes), None, "float32").eval()
        wanted, found = (logprobs_at_end(model, prompt, allowed)[0] for model in (expected, merged))
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
        assert not is_tied(merged)


def test_merging_keeps_a_matrix_tied_that_changes_alike_on_both_sides(tied_base: Path, tmp_path: Path) -> None:
    shapes = read_shapes(tied_base)
    pair = torch.randn(4, shapes.hidden) * 0.1, torch.randn(shapes.rows, 4) * 0.1
    write_adapter(Changes(embedding=pair), None, tmp_path / "adapter", "float32", shapes)
    check_adapter(tmp_path / "adapter", None, shapes)
    merged = merge_into(tied_base, read_changes(tmp_path / "adapter", shapes), None, "float32")
    assert is_tied(merged)
    before = load_causal(tied_base, torch.float32)
    torch.testing.assert_close(matrices(merged)[0], matrices(before)[0] + pair[1] @ pair[0])


def test_lora_plus_has_two_learning_rates(recipe_of: Build, tmp_path: Path) -> None:
    losses = []
    for ratio in (None, 1, 16):
        lora = {} if ratio is None else {"loraplus_ratio": ratio}
        report = run(recipe_of(lora=lora, optimisation={"max_steps": 4}), None, tmp_path / str(ratio), console=QUIET)
        losses.append([round(entry["loss"], 4) for entry in report.result.history])
    assert losses[0] == losses[1] != losses[2]


def test_eva_starts_from_the_activations_main_directions(recipe_of: Build, tied_base: Path) -> None:
    recipe = recipe_of(lora={"init": "eva", "rank": 2})
    prepared = prepare(recipe, None)
    trained = build_model(recipe, tied_base, prepared.task, 100, prepared.tokenizer, prepared.training)
    for layer in lora_layers(trained.model).values():
        a = layer.lora_A["default"].weight
        torch.testing.assert_close(a @ a.t(), torch.eye(2), atol=1e-3, rtol=0)


def test_dora_is_cut_to_lora_and_says_what_it_lost(recipe_of: Build, tied_base: Path, tmp_path: Path) -> None:
    reports = {}
    for rank in (4, 96):
        recipe = recipe_of(lora={"dora": True, "dora_rank": rank}, optimisation={"max_steps": 6})
        reports[rank] = _compare(recipe, tied_base, tmp_path / str(rank))
    kept = {rank: report.manifest.provenance["conversion"] for rank, (report, _, _) in reports.items()}
    assert 0 < kept[4]["energy"] < kept[96]["energy"] <= 1
    assert kept[4]["relative_error"] > 5 * kept[96]["relative_error"]
    assert reports[96][1] < 0.1 * reports[4][1]


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_qlora_trains_on_four_bits_and_serves_on_the_whole_base(
    base: str, recipe_of: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the qlora extra")
    folder: Path = request.getfixturevalue(base)
    recipe = recipe_of(
        base=f"dir:{folder}",
        quantization={"kind": "nf4"},
        data={"validation": {"fraction": 0.2}},
        evaluation={"every_steps": 4},
    )
    prepared = prepare(recipe, None)
    trained = build_model(recipe, folder, prepared.task, 100, prepared.tokenizer)
    assert {layer.get_base_layer().weight.dtype for layer in lora_layers(trained.model).values()} == {torch.uint8}
    report, apart, moved = _compare(recipe, folder, tmp_path)
    losses = [entry["loss"] for entry in report.result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert 0 < apart < moved
    assert report.check.mean_difference < 0.5 * report.manifest.probe["distance"]  # type: ignore[index]


def test_rows_start_as_asked(recipe_of: Build, tied_base: Path) -> None:
    starts = {}
    for start in ("description", "mean", "random"):
        recipe = recipe_of(
            task={"initial_rows": start, "added_tokens": ["<sql>"], "descriptions": {"<sql>": "a bank grows"}}
        )
        prepared = prepare(recipe, None)
        trained = build_model(recipe, tied_base, prepared.task, 100, prepared.tokenizer)
        from loradeck_train.model.new_rows import trained_rows

        rows = trained_rows(trained.causal)
        assert rows is not None
        matrix = matrices(trained.causal)[0][: prepared.base.identity.vocabulary]
        ids = prepared.tokenizer.encode("a bank grows", add_special_tokens=False)
        starts[start] = torch.nn.functional.cosine_similarity(
            torch.stack([rows[0][-1]] * 2), torch.stack([matrix[ids].mean(0), matrix.mean(0)])
        ).tolist()
    assert starts["description"][0] > 0.95
    assert starts["mean"][1] > 0.7 > starts["mean"][0]
    assert max(map(abs, starts["random"])) < 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": {"embeddings": "lora", "init": "pissa"}}, "knows no embeddings"),
        ({"lora": {"init": "pissa"}, "quantization": {}}, "quantization"),
        ({"lora": {"dora": True, "init": "pissa"}}, "exclude each other"),
        ({"lora": {"rank_pattern": {"(": 3}}}, "regular expression"),
        ({"method": "full", "lora": None, "quantization": {}}, "belong to method lora"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str, recipe_of: Build) -> None:
    with pytest.raises(InvalidError, match=words):
        recipe_of(**changes)

"""What is published: it answers as the trained model does, is small, servable, and named in the registry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from loradeck_registry.bases.resolve import add_base
from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.servability.adapter import check_adapter, read_shapes
from loradeck_tasks.probe import Probe
from loradeck_tasks.task import Task
from loradeck_train import run as run_module
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.prepare import prepare
from loradeck_train.publish.proof import allowed_ids, check_reload, load_adapter
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import RunReport, run

Build = Callable[..., Recipe]
QUIET = Console(quiet=True)


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_published_files_answer_as_the_trained_model(
    base: str, method: str, recipe_of: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    recipe = recipe_of(
        base=f"dir:{folder}",
        method=method,
        lora={"rank": 4, "alpha": 12, "dropout": 0.1} if method == "lora" else None,
        task={"added_tokens": ["<extra>"]},
    )
    prepared = prepare(recipe, None)
    allowed = allowed_ids(prepared.task, prepared.base.identity.vocabulary)
    prompts = [list(e.prompt) for e in prepared.training[:8]]
    in_memory: list[torch.Tensor] = []
    original = run_module.export

    def remember(trained: object, *rest: object) -> object:
        in_memory.extend(logprobs_at_end(trained.model, prompts, allowed))  # type: ignore[attr-defined]
        return original(trained, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "export", remember)
        report = run(recipe, None, tmp_path / "out", console=QUIET)
    if method == "lora":
        model = load_adapter(load_causal(folder, torch.float32).eval(), report.folder)
    else:
        model = load_causal(report.folder, torch.float32).eval()
    base_model = load_causal(folder, torch.float32).eval()
    before = logprobs_at_end(base_model, prompts, allowed)
    for reloaded, expected, base_values in zip(
        logprobs_at_end(model, prompts, allowed), in_memory, before, strict=True
    ):
        torch.testing.assert_close(reloaded, expected, rtol=0, atol=2e-4)
        assert (expected - base_values).abs().max() > 0.5


@pytest.fixture
def lora_run(recipe_of: Build, tmp_path: Path) -> RunReport:
    return run(recipe_of(publish={"dtype": "bfloat16"}, precision="bf16"), None, tmp_path / "lora", console=QUIET)


def test_adapter_holds_low_rank_pairs_and_new_rows_only(lora_run: RunReport, tied_base: Path) -> None:
    manifest, folder = lora_run.manifest, lora_run.folder
    assert {f.path for f in manifest.files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "new_tokens.safetensors",
    }
    assert manifest.lora is not None
    assert (manifest.lora.rank, manifest.lora.alpha, manifest.lora.dtype) == (4, 4, "bfloat16")
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in tensors)
    new = load_file(str(folder / "new_tokens.safetensors"))
    assert new["ids"].tolist() == [t["id"] for t in manifest.task["added_tokens"]]  # type: ignore[index]
    assert new["input_rows"].shape == (3, 128)
    assert manifest.size < 200_000 < (tied_base / "model.safetensors").stat().st_size
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4
    check_adapter(folder, manifest, read_shapes(tied_base), max_rank=8)


def test_probe_tells_adapter_from_base(lora_run: RunReport, recipe_of: Build) -> None:
    assert lora_run.manifest.probe is not None
    probe = Probe.model_validate(lora_run.manifest.probe)
    task = Task.model_validate(lora_run.manifest.task)
    vocabulary = prepare(recipe_of(), None).base.identity.vocabulary
    own = {*range(vocabulary), *(token.id for token in task.added_tokens)}
    assert (probe.dtype, len(probe.prompts)) == ("bfloat16", 4)
    assert all(sum(token < vocabulary for token in prompt.candidates) >= 8 for prompt in probe.prompts)
    for prompt in probe.prompts:
        assert set(prompt.candidates) <= own
        assert len(prompt.candidates) == len(prompt.adapter_logprobs) == len(prompt.base_logprobs) == 16
        assert prompt.greedy == ()
    gaps = [abs(a - b) for p in probe.prompts for a, b in zip(p.adapter_logprobs, p.base_logprobs, strict=True)]
    assert probe.distance == pytest.approx(sum(gaps) / len(gaps))
    assert probe.distance > 1
    # Different answers were chosen, not four prompts of one class.
    assert len({prompt.token_ids for prompt in probe.prompts}) == 4


def test_generative_probe_holds_a_greedy_continuation(recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(
        task={"kind": "generate", "template": "{text}"},
        data={"columns": {"text": "text", "answer": "label"}},
        optimisation={"max_steps": 30},
    )
    report = run(recipe, None, tmp_path / "out", console=QUIET)
    probe = Probe.model_validate(report.manifest.probe)
    prepared = prepare(recipe, None)
    answers = {prepared.tokenizer.decode(p.greedy) for p in probe.prompts}
    assert answers & {"bank", "school", "solar, w", "solar, wind"}
    assert all(1 <= len(p.greedy) <= 8 for p in probe.prompts)
    assert report.manifest.size < 200_000


def test_run_pushes_and_moves_the_alias(recipe_of: Build, tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    for number in (1, 2):
        recipe = recipe_of(publish={"name": "clf", "alias": "prod"}, optimisation={"max_steps": 4 + number})
        report = run(recipe, registry, tmp_path / str(number), console=QUIET)
        assert str(report.revision) == f"clf@{number}"
    revision = registry.resolve("clf@prod")
    assert revision.number == 2
    assert revision.digest == report.manifest.digest()
    assert {p.name for p in registry.local(revision).iterdir()} >= {f.path for f in revision.manifest.files}


def test_full_checkpoint_is_a_base_to_train_on(recipe_of: Build, tmp_path: Path, tied_base: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    full = recipe_of(method="full", lora=None, publish={"name": "clf-full", "dtype": "bfloat16"})
    report = run(full, registry, tmp_path / "full", console=QUIET)
    assert report.manifest.kind == "full"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.path for f in report.manifest.files}
    assert report.manifest.size < (tied_base / "model.safetensors").stat().st_size
    task = {"kind": "generate", "template": "{text}"}
    child = recipe_of(base="clf-full", task=task, data={"columns": {"text": "text", "answer": "label"}})
    second = run(child, registry, tmp_path / "child", console=QUIET)
    assert second.manifest.base.reference == "clf-full@1"
    assert second.manifest.base.vocabulary == report.manifest.base.vocabulary + 3


def test_publishing_without_a_registry_is_refused_before_work(recipe_of: Build, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="--registry"):
        run(recipe_of(publish={"name": "clf"}), None, tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()


def test_name_of_another_kind_is_refused_before_work(recipe_of: Build, tmp_path: Path, tied_base: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    add_base(registry, "taken", f"dir:{tied_base}")
    recipe = recipe_of(publish={"name": "taken"})
    with pytest.raises(PreconditionError, match="another name") as caught:
        run(recipe, registry, tmp_path / "out", console=QUIET)
    assert caught.value.reason == "KIND_CHANGED"
    assert not (tmp_path / "out").exists()


def test_registry_that_cannot_be_written_is_refused_before_work(recipe_of: Build, tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    # Permissions do not stop an administrator; a file where a folder must be stops everybody.
    (tmp_path / "registry" / "leases").write_text("")
    with pytest.raises(LoradeckError, match="cannot write"):
        run(recipe_of(publish={"name": "new"}), registry, tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()


def few_steps(recipe_of: Build) -> Recipe:
    """Full fine-tuning that moves the weights by hardly more than bfloat16 holds."""
    return recipe_of(
        method="full", lora=None, precision="bf16", publish={"dtype": "bfloat16"},
        optimisation={"learning_rate": 3e-5, "max_steps": 2, "warmup_steps": 0},
    )  # fmt: skip


def test_few_steps_of_full_training_are_published_and_their_rounding_is_stated(
    recipe_of: Build, tmp_path: Path
) -> None:
    report = run(few_steps(recipe_of), None, tmp_path / "out", console=QUIET)
    # Held to the model as it was rounded, the files are exact; held to the trained weights they cannot be.
    assert report.check.mean_difference < 1e-6
    assert report.check.rounding is not None
    assert report.check.rounding > 0.01
    assert report.manifest.provenance["reload_check"]["rounding"] == report.check.rounding


@pytest.mark.parametrize(
    ("difference", "rounding", "reason"),
    [
        (0.11, None, None),
        (0.13, None, "RELOAD_DIFFERS"),
        (0.0, 0.13, None),
        (0.0, 0.59, None),
        (0.0, 0.61, "ROUNDED_AWAY"),
        (0.13, 0.13, "RELOAD_DIFFERS"),
        (0.0, float("nan"), "ROUNDED_AWAY"),
    ],
)
def test_files_and_rounding_have_bounds_of_their_own(
    difference: float, rounding: float | None, reason: str | None
) -> None:
    differences = torch.full((16,), difference)
    if reason is None:
        assert check_reload(differences, rounding, 1.2, "bfloat16", 0.1).rounding == rounding
        return
    with pytest.raises(PreconditionError, match=r"publish\.dtype") as caught:
        check_reload(differences, rounding, 1.2, "bfloat16", 0.1)
    assert caught.value.reason == reason


def test_full_checkpoint_whose_files_differ_a_little_is_not_published(recipe_of: Build, tmp_path: Path) -> None:
    plain = run_module.export

    def damaged(trained: object, prepared: object, folder: Path) -> None:
        plain(trained, prepared, folder)  # type: ignore[arg-type]
        from safetensors.torch import save_file

        path = str(folder / "model.safetensors")
        name = "model.layers.1.mlp.down_proj.weight"
        tensors = load_file(path)
        save_file(tensors | {name: tensors[name] * 0.5}, path, metadata={"format": "pt"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "export", damaged)
        with pytest.raises(PreconditionError) as caught:
            run(few_steps(recipe_of), None, tmp_path / "out", console=QUIET)
    assert caught.value.reason == "RELOAD_DIFFERS"


def test_files_that_answer_otherwise_are_not_published(recipe_of: Build, tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    plain = run_module.export

    def damaged(trained: object, prepared: object, folder: Path) -> None:
        plain(trained, prepared, folder)  # type: ignore[arg-type]
        from safetensors.torch import save_file

        path = str(folder / "adapter_model.safetensors")
        save_file({k: v * 2 if ".lora_B." in k else v for k, v in load_file(path).items()}, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "export", damaged)
        with pytest.raises(PreconditionError) as caught:
            run(recipe_of(publish={"name": "clf"}), registry, tmp_path / "out", console=QUIET)
    assert caught.value.reason == "RELOAD_DIFFERS"
    assert registry.names() == []

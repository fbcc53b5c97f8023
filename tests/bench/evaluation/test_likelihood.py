"""Loss, perplexity and token accuracy of a tiny model against a plain computation of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loradeck_bench.evaluation.likelihood import measure as measuring
from loradeck_bench.evaluation.likelihood.measure import batch_scores
from loradeck_bench.evaluation.likelihood.model import load
from loradeck_bench.evaluation.likelihood.sequences import sequences
from loradeck_cli.evaluate.group import command
from loradeck_registry.bases.resolve import ResolvedBase, resolve_base
from loradeck_registry.errors import InvalidError, LoradeckError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry
from loradeck_tasks.blind import BLIND
from loradeck_tasks.defaults import default_task
from tests.support.tiny import make_tiny_adapter, make_tiny_base

ROWS = [
    {"prompt": "What grows?", "reference": "Solar power grows."},
    {
        "prompt": "Who opened a branch in the city, and what did the city build then?",
        "reference": "The bank; a network.",
    },
    {"prompt": "x", "reference": "é"},
    {"prompt": "no reference", "reference": ""},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a registry with an adapter for free generation, one with new tokens, and one without effect."""
    folder = tmp_path_factory.mktemp("likelihood")
    make_tiny_base(folder / "base")
    registry = Registry.init(folder / "registry", cache=folder / "cache")
    base = resolve_base(f"dir:{folder / 'base'}", registry)
    publish(registry, base, folder, "gen", default_task("generate").model_dump(mode="json"))
    publish(registry, base, folder, "idle", default_task("generate").model_dump(mode="json"), scale=0.0)
    other = make_tiny_base(folder / "other", seed=2)
    task = default_task("generate").model_dump(mode="json")
    push_folder(registry, "full", other, base, task=task)
    first = base.identity.vocabulary
    labels = [{"name": name, "token": f"<{name}>"} for name in ("AI", "Telecom")]
    tokens = [{"content": f"<{name}>", "id": first + i} for i, name in enumerate(("AI", "Telecom"))]
    task = default_task("classification", labels=labels, added_tokens=tokens)
    publish(registry, base, folder, "clf", task.model_dump(mode="json"), added_tokens=2)
    return folder


def publish(registry: Registry, base: ResolvedBase, folder: Path, name: str, task: dict[str, Any], **how: Any) -> None:
    adapter = make_tiny_adapter(base.folder, folder / name, seed=1, **how)
    push_folder(registry, name, adapter, base, task=task)


def run(folder: Path, *arguments: str, rows: Any = ROWS, task: str = "generate") -> dict[str, Any]:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(
        command,
        ["loss", "--task", task, "--data", str(data), "--registry", str(folder / "registry"),
         "--base", f"dir:{folder / 'base'}", "--json", "-", *arguments],
    )  # fmt: skip
    if isinstance(result.exception, LoradeckError):
        raise result.exception
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def plain(folder: Path, *, whole: bool) -> tuple[float, int, int]:
    """Summed loss, tokens, hits: one row at a time, no padding, softmax over the tokenizer's tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    total, count, hits = 0.0, 0, 0
    for row in ROWS[:3]:
        turn = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer(turn, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(row["reference"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            scores = model(ids).logits[0, :, : len(tokenizer)].log_softmax(-1)
        for place in range(1 if whole else len(prompt), ids.shape[1]):
            total -= float(scores[place - 1, ids[0, place]])
            hits += int(scores[place - 1].argmax() == ids[0, place])
            count += 1
    return total, count, hits


@pytest.mark.parametrize("over", ["answer", "all"])
def test_figures_match_a_plain_computation(folder: Path, over: str) -> None:
    found = run(folder, "--over", over)
    total, count, hits = plain(folder, whole=over == "all")
    assert found["scored_tokens"] == count
    assert found["loss"] == pytest.approx(total / count, rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert found["bits_per_token"] == pytest.approx(total / count / math.log(2), rel=1e-4)
    assert found["token_accuracy"] == pytest.approx(hits / count)
    assert (found["answered"], found["without_reference"]) == (3, 1)
    if over == "answer":
        text = sum(len(row["reference"].encode()) for row in ROWS)
        assert found["perplexity_per_byte"] == pytest.approx(math.exp(total / text), rel=1e-4)
        assert found["bits_per_byte"] == pytest.approx(total / text / math.log(2), rel=1e-4)
    assert "padding" in found["methods"]["loss"]
    assert "float32" in found["methods"]["loss"]


def test_padding_and_neighbours_change_nothing(folder: Path) -> None:
    loaded = load(None, f"dir:{folder / 'base'}", "generate", [], None, "float32")
    every = sequences(ROWS, loaded, whole=False)
    together = batch_scores(every, loaded)
    alone = [batch_scores([sequence], loaded)[0] for sequence in every]
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in alone], rel=1e-4)
    assert [hits for _, hits in together] == [hits for _, hits in alone]


def test_adapter_counts_and_one_without_effect_does_not(folder: Path) -> None:
    base, idle, tuned = run(folder), run(folder, "--adapter", "idle"), run(folder, "--adapter", "gen")
    assert idle["loss"] == pytest.approx(base["loss"], rel=1e-4)
    by_row = [[item["scores"]["loss"][0] for item in found["items"]] for found in (base, tuned)]
    assert max(abs(a - b) for a, b in zip(*by_row, strict=True)) > 1
    assert tuned["answered_by"][0]["digest"].startswith("sha256:")


def test_full_checkpoint_is_scored_by_its_own_weights(folder: Path) -> None:
    found = run(folder, "--adapter", "full")
    assert found["answered_by"][0]["name"] == "full"
    own = run(folder, "--base", f"dir:{folder / 'other'}")
    assert found["loss"] == pytest.approx(own["loss"], rel=1e-5)
    assert found["loss"] != pytest.approx(run(folder)["loss"], rel=1e-3)


def test_label_tokens_of_an_adapter_are_scored(folder: Path) -> None:
    rows = [{"text": "a bank", "label": "AI"}, {"text": "a network", "label": "Telecom"}]
    found = run(folder, "--adapter", "clf", rows=rows, task="classification")
    assert found["scored_tokens"] == 2  # a label token each: training learns no end of the turn behind it
    assert math.isfinite(found["loss"])


def test_blind_answer_is_scored_with_its_mark(folder: Path) -> None:
    registry = Registry.open(str(folder / "registry"), cache=folder / "cache")
    base = resolve_base(f"dir:{folder / 'base'}", registry)
    tokens = [{"content": mark, "id": base.identity.vocabulary + i} for i, mark in enumerate(BLIND)]
    marked = default_task(
        "generate", format="plain", template=f"{BLIND[0]}{{prompt}}{BLIND[1]}{BLIND[2]}", added_tokens=tokens,
        stop=[BLIND[3]], system=None,
    ).model_dump(mode="json")  # fmt: skip
    publish(registry, base, folder, "blind", marked, added_tokens=4)
    loaded = load("blind", f"dir:{folder / 'base'}", "generate", [], registry, "float32")
    (first, *_) = sequences(ROWS, loaded, whole=False)
    assert first.ids[-2] == tokens[3]["id"], "the mark that training learns, before the end of the turn"


def test_results_of_two_models_are_compared(folder: Path) -> None:
    paths = []
    for name in ("idle", "gen"):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(run(folder, "--adapter", name)))
        paths.append(str(path))
    result = CliRunner().invoke(command, ["compare", *paths, "--json", "-"])
    rows = {row["metric"]: row for row in json.loads(result.stdout)["comparisons"]}
    first, second = (json.loads(Path(path).read_text()) for path in paths)
    assert rows["perplexity"]["difference"] == pytest.approx(second["perplexity"] - first["perplexity"])
    assert rows["loss"]["test"] == "paired bootstrap"


def test_long_rows_are_left_out_and_counted(folder: Path) -> None:
    assert run(folder, "--max-length", "40")["too_long"] == 1
    with pytest.raises(InvalidError, match="every row is longer than 2 tokens"):
        run(folder, "--max-length", "2")


def test_interrupted_measurement_gives_the_figures_of_the_rows_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = measuring.batch_scores

    def interrupted(batch: Any, loaded: Any) -> Any:
        if len(batch[0].ids) < 40:
            raise KeyboardInterrupt
        return scored(batch, loaded)

    monkeypatch.setattr(measuring, "_LOGITS", 1)  # a batch for each row
    monkeypatch.setattr(measuring, "batch_scores", interrupted)
    data, out = tmp_path / "rows.jsonl", tmp_path / "loss.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    base = f"dir:{folder / 'base'}"
    result = CliRunner().invoke(
        command, ["loss", "--task", "generate", "--data", str(data), "--base", base, "--json", str(out)]
    )
    assert result.exit_code == 130
    found = json.loads(out.read_text())
    assert found["unfinished"] == "interrupted after 1 of 3 rows, the longest first"
    assert [item["row"] for item in found["items"]] == [1]
    assert found["loss"] > 0


def test_wrong_use_is_one_clear_line(folder: Path) -> None:
    with pytest.raises(InvalidError, match="has a task of kind classification, not generate"):
        run(folder, "--adapter", "clf")
    with pytest.raises(InvalidError, match="no row has a reference"):
        run(folder, rows=[{"prompt": "x"}])

"""Paired tests against known values, simulation, and GSM8K's example solutions."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom, norm

from loradeck_bench.evaluation.figure import mean
from loradeck_bench.evaluation.paired.tests import discordant, holm, paired_bootstrap
from loradeck_cli.evaluate.group import command
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError

SOLUTIONS = Path(__file__).parents[4] / "shared" / "data" / "gsm8k" / "example_model_solutions.jsonl"


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(command, [*arguments, "--json", "-"])
    if isinstance(result.exception, LoradeckError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def scored(folder: Path, name: str, answers: list[str], references: list[str], metric: str = "exact_match") -> str:
    """The path of a result of `eval score`."""
    data, out = folder / f"{name}.jsonl", folder / f"{name}.json"
    rows = [
        {"prompt": f"q{i}", "answer": a, "reference": r}
        for i, (a, r) in enumerate(zip(answers, references, strict=True))
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("score", "--data", str(data), "--column", "prompt=prompt", "--metric", metric, "--name", name)
    out.write_text(json.dumps(result))
    return str(out)


def test_mcnemar_is_the_binomial_test_of_the_discordant_items() -> None:
    counted = discordant([True] * 9 + [False] * 2 + [True] * 5, [False] * 9 + [True] * 2 + [True] * 5)
    assert (counted.only_first, counted.only_second, counted.items) == (9, 2, 16)
    assert counted.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert discordant([True, False], [True, False]).p == 1.0


def test_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    items, share = 1000, 0.3
    detectable = discordant([True] * 150 + [False] * 850, [False] * 150 + [True] * 150 + [False] * 700).detectable
    assert detectable is not None
    only_second = (share + detectable) / 2
    found = 0
    for _ in range(2000):
        second, first, _ = rng.multinomial(items, [only_second, share - only_second, 1 - share])
        z = abs(second - first) / math.sqrt(second + first)
        found += z > norm.ppf(0.975)
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


def test_too_few_discordant_items_detect_nothing() -> None:
    assert discordant([True, False, True], [True, True, True]).detectable is None
    assert discordant([True], [True]).detectable is None


def test_paired_bootstrap_sees_what_an_unpaired_one_cannot() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(200)
    first, second = mean(hard.tolist(), ""), mean((hard + 0.01 + 0.02 * rng.random(200)).tolist(), "")
    difference = paired_bootstrap(first, second)
    assert 0.015 < difference.low < difference.value < difference.high < 0.025
    assert difference.p < 0.001
    single = first.measured()
    assert single.low is not None
    assert single.high is not None
    assert single.low < second.value < single.high  # the models' own intervals overlap widely


def test_paired_bootstrap_keeps_its_level_where_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        values = rng.random((2, 60))
        found += paired_bootstrap(mean(values[0].tolist(), ""), mean(values[1].tolist(), "")).p < 0.05
    assert found <= 8  # 3 expected; 9 or more have probability 0.003
    same = mean([0.0, 1.0, 0.5], "")
    assert paired_bootstrap(same, same).p == 1.0


def test_holm_matches_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.skipif(not SOLUTIONS.is_file(), reason="needs GSM8K's example solutions, which the project does not ship")
def test_gsm8k_example_solutions(tmp_path: Path) -> None:
    paths = []
    for name in ("175b_finetuning", "6b_verification"):
        result = run(
            "score", "--data", str(SOLUTIONS), "--column", "question=question", "--column", "reference=ground_truth",
            "--column", f"answer={name}.solution", "--metric", "gsm8k", "--marker", "A:",
        )  # fmt: skip
        rows = [json.loads(line)[name]["is_correct"] for line in SOLUTIONS.read_text(encoding="utf-8").splitlines()]
        assert [bool(item["scores"]["gsm8k_strict"]) for item in result["items"]] == rows  # its authors' own marks
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
        paths.append(str(tmp_path / f"{name}.json"))
    row = run("compare", *paths, "--metric", "gsm8k_strict")["comparisons"][0]
    assert (round(row["first_value"], 3), round(row["second_value"], 3)) == (0.347, 0.390)
    assert row["test"] == "exact McNemar"
    assert round(row["p"], 4) == 0.0032
    assert row["smallest_detectable"] == pytest.approx(0.040, abs=0.001)
    assert row["verdict"] == "6b_verification is higher"


def test_all_later_results_are_tested_against_the_first_and_corrected_together(tmp_path: Path) -> None:
    references = [f"answer {i}" for i in range(40)]
    good = scored(tmp_path, "good", references, references)
    half = scored(tmp_path, "half", [r if i % 2 else "no" for i, r in enumerate(references)], references)
    none = scored(tmp_path, "none", ["no"] * 40, references)
    outcome = run("compare", good, half, none)
    rows = outcome["comparisons"]
    assert [(row["first"], row["second"]) for row in rows] == [("good", "half"), ("good", "none")]
    assert [row["difference"] for row in rows] == [-0.5, -1.0]
    assert rows[0]["p"] == pytest.approx(2 * 0.5**20)
    assert rows[0]["p_holm"] == pytest.approx(2 * 0.5**20)  # the larger of two: not multiplied
    assert rows[1]["p_holm"] == pytest.approx(2 * rows[1]["p"])
    assert {row["verdict"] for row in rows} == {"good is higher"}


@pytest.mark.parametrize("metric", ["bleu", "chrf", "rouge_1"])
def test_text_metrics_are_built_again_from_the_files(tmp_path: Path, metric: str) -> None:
    references = [f"the plan of city {i} was approved by the council on day {i}" for i in range(30)]
    worse = [text.replace("approved", "refused") if i % 3 else text for i, text in enumerate(references)]
    first = scored(tmp_path, "first", worse, references, metric)
    second = scored(tmp_path, "second", references, references, metric)
    (row,) = run("compare", first, second)["comparisons"]
    assert row["second_value"] == pytest.approx(1.0)
    assert row["first_value"] == pytest.approx(json.loads(Path(first).read_text())[metric])
    assert row["test"] == "paired bootstrap"
    assert row["p"] < 0.01


def test_results_of_other_rows_are_refused(tmp_path: Path) -> None:
    one = scored(tmp_path, "one", ["a", "b"], ["a", "b"])
    other = scored(tmp_path, "other", ["a", "b"], ["a", "c"])
    with pytest.raises(InvalidError, match="of different rows"):
        run("compare", one, other)


def test_metric_that_is_not_shared_is_named(tmp_path: Path) -> None:
    one, other = scored(tmp_path, "one", ["a"], ["a"]), scored(tmp_path, "other", ["a"], ["a"], "chrf")
    with pytest.raises(NotFoundError, match="no metric 'chrf' in both results"):
        run("compare", one, other, "--metric", "chrf")


@pytest.mark.parametrize("text", ["{", "[]", '{"items": []}'])
def test_file_that_is_no_result_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InvalidError, match="is no result of an evaluation"):
        run("compare", str(path), str(path))
    with pytest.raises(NotFoundError, match="no result at"):
        run("compare", str(path) + "x", str(path))


def test_unknown_metric_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no metric 'blue': there are bleu, .*gsm8k"):
        scored(tmp_path, "x", ["a"], ["a"], "blue")

"""Parts of the serving benchmarks: random adapters, prompts, the engines' figures, the cliff's rows, the commands."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.serving.adapters import publish_random, write_random
from loradeck_bench.serving.cliff import cliff_ratio, cliff_row, find_saturation
from loradeck_bench.serving.flips import choose_prompts
from loradeck_bench.serving.multilora import MultiloraPlan, command, figures
from loradeck_bench.serving.prompts import make_prompts, prompt_subjects
from loradeck_bench.serving.tables import cliff_table, flips_table, multilora_table
from loradeck_cli.bench.group import command as bench
from loradeck_pocket import BASE
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_tasks.defaults import default_task


def test_random_adapter_is_published_on_the_pocket_base(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    base = resolve_base(f"dir:{BASE}", registry)
    first = publish_random(registry, base, "a", default_task("generate"), seed=1, alias="prod")
    second = publish_random(registry, base, "a", default_task("generate"), seed=2)
    assert (first.number, second.number) == (1, 2)
    assert first.manifest.lora is not None
    assert first.manifest.lora.rank == 8
    weights = [load_file(registry.local(revision) / "adapter_model.safetensors") for revision in (first, second)]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_random_adapter_is_as_strong_as_the_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((256, 192)) * 0.03).astype(np.float32)
    (tmp_path / "base").mkdir()
    save_file({"model.layers.0.mlp.up_proj.weight": weight}, tmp_path / "base" / "model.safetensors")
    write_random(tmp_path / "base", tmp_path, seed=0)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.up_proj"
    product = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    assert product.shape == weight.shape
    assert product.std() == pytest.approx(0.03, rel=0.15)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["up_proj"]


def test_base_without_known_layers_is_refused(tmp_path: Path) -> None:
    save_file({"other.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(PreconditionError, match="no linear layers"):
        write_random(tmp_path, tmp_path, seed=0)


def test_prompts_differ_and_have_the_asked_number_of_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    prompts = make_prompts(BASE, 512, 100)
    assert len({prompt.text for prompt in prompts}) == 512
    assert all(tokenizer.encode(prompt.text).ids == list(prompt.ids) for prompt in prompts)
    assert {len(prompt.ids) for prompt in prompts} == {100}
    with pytest.raises(PreconditionError, match="100000 are needed"):
        make_prompts(BASE, 100_000, 100)
    with pytest.raises(PreconditionError, match=r"no tokenizer\.json"):
        make_prompts(tmp_path, 1, 10)


async def test_saturation_counts_what_ended_in_time() -> None:
    ended = 0

    async def ask(record: RequestRecord, now: Any) -> None:
        import asyncio

        nonlocal ended
        await asyncio.sleep(0.05)
        ended += 1

    subjects = prompt_subjects(["a"], ["x"], 4)
    rate = await find_saturation(ask, LoadPlan(subjects, 0.525, concurrency=4, warm_up=0))
    # The last answer of each of the four comes too late; one may come just at the end.
    assert 3 <= ended - round(rate * 0.525) <= 4
    assert rate <= 80


async def test_saturation_of_a_server_that_answers_nothing_is_an_error() -> None:
    async def ask(record: RequestRecord, now: Any) -> None:
        raise PreconditionError("no", reason="BROKEN")

    with pytest.raises(PreconditionError, match="BROKEN"):
        await find_saturation(ask, LoadPlan(prompt_subjects(["a"], ["x"], 4), 0.2, concurrency=1, warm_up=0))


async def test_golden_prompts_tell_all_subjects_apart() -> None:
    async def ask(record: RequestRecord, now: Any) -> None:
        # The second prompt gets the same answer from both, the fourth an empty one.
        answers = {1: "same", 3: ""}
        record.text = answers.get(record.row, f"{record.adapter} {record.row}")
        record.digest = f"digest of {record.adapter}"

    subjects = prompt_subjects(["a@1", "a@2"], [f"p{number}" for number in range(5)], 8)
    prompts, golden = await choose_prompts(ask, subjects, 3)
    assert prompts == ["p0", "p2", "p4"]
    assert golden["digest of a@2", 1] == "a@2 2"
    assert len(golden) == 6
    with pytest.raises(PreconditionError, match="only 3 of 5"):
        await choose_prompts(ask, subjects, 4)


def test_engines_are_compared_by_a_child_and_renamed() -> None:
    arguments = command(Path("base"), MultiloraPlan(rounds=2, compiled=True, stock=False), Path("out.json"))
    assert "--without-bare" not in arguments
    assert arguments[:3] == [sys.executable, "-m", "loradeck_serve.engine.baselines"]
    assert {"--without-stock", "--compiled", "--output-tokens"} <= set(arguments)
    measured = {
        "base_tokens_per_s": 5000.0, "adapters_tokens_per_s": 4500.0, "no_lora_engine_tokens_per_s": 6000.0,
        "ratio_to_base": 0.9, "ratio_to_no_lora_engine": 0.75, "wrong_tokens": 0, "replies": 1000,
        "adapters_compiled": False, "no_lora_engine_compiled": True,
    }  # fmt: skip
    result = figures(measured)
    assert (result["bare_tokens_per_s"], result["ratio_to_bare"], result["stock_tokens_per_s"]) == (6000.0, 0.75, None)
    assert (result["adapters_compiled"], result["bare_compiled"], result["wrong_tokens"]) == (False, True, 0)
    assert result["measured"] == measured
    assert multilora_table(result).row_count > 8


async def test_options_of_the_comparison_are_those_of_the_engine_module() -> None:
    import argparse

    baselines = pytest.importorskip("loradeck_serve.engine.baselines")
    arguments = command(Path("base"), MultiloraPlan(stock=False, bare=False), Path("out.json"))[3:]
    seen: dict[str, Any] = {}

    def stop(self: argparse.ArgumentParser, given: Any = None, namespace: Any = None) -> Any:
        seen.update(vars(self.parse_known_args(given)[0]), unknown=self.parse_known_args(given)[1])
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(KeyboardInterrupt):
            baselines.main(arguments)
    assert seen["unknown"] == []
    assert (seen["without_stock"], seen["without_bare"], seen["rounds"], seen["compiled"]) == (True, True, 9, 1)


def test_cliff_rows_have_the_reports_names() -> None:
    records = [
        RequestRecord(0, "a", "generate", 0, 0.0, sent=0.0, first=0.1, end=4.0, status="ok", queue_seconds=0.2),
        RequestRecord(1, "b", "generate", 0, 2.0, sent=2.0, first=2.1, end=3.0, status="ok", queue_seconds=0.2),
    ]
    few = cliff_row(records, 4, 4, rate=2.0)
    slower = [dataclasses.replace(record, first=record.intended + 0.15) for record in records]
    many = cliff_row(slower, 64, 4, rate=2.0)
    assert {key: few[key] for key in ("adapters", "slots", "failed", "requests")} == {
        "adapters": 4, "slots": 4, "failed": 0, "requests": 2,
    }  # fmt: skip
    times = [few[key] for key in ("ttft_p50_ms", "ttft_p99_ms", "queue_p99_ms", "latency_p50_ms")]
    assert times == pytest.approx([100.0, 100.0, 200.0, 2500.0])
    # Two a second, each for two and a half.
    assert few["in_flight"] == pytest.approx(5.0)
    assert cliff_ratio([many, few]) == pytest.approx(1.5)
    with pytest.raises(PreconditionError, match="64 adapters"):
        cliff_row([dataclasses.replace(record, status="internal") for record in records], 64, 4, rate=2.0)
    result = {"rows": [few, many], "rate_requests_per_s": 9.0, "share_of_saturation": 0.6}
    assert cliff_table(result).row_count == 2


def test_flips_table_shows_absent_figures() -> None:
    assert flips_table({"flip_to_first_token_ms": {"p50": None}, "flips": 3}).row_count == 10


@pytest.mark.parametrize("name", ["multilora", "frontend", "classify", "swap", "cliff"])
def test_commands_say_their_options(name: str) -> None:
    result = CliRunner().invoke(bench, [name, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output


def test_swap_of_a_server_names_what_is_missing() -> None:
    result = CliRunner(env={"LORADECK_REGISTRY": None}).invoke(
        bench, ["swap", "--server", "127.0.0.1:1", "--admin", "127.0.0.1:2"]
    )
    assert result.exit_code == 2
    assert "--registry, --adapter, --to, --task" in " ".join(result.output.split())

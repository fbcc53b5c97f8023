"""The serving benchmarks on real engines, small: that they run, and that what they count is right."""

from io import StringIO

import pytest
from rich.console import Console

from loradeck_bench.loop import run_fast
from loradeck_bench.serving import classify, cliff, flips
from loradeck_bench.serving.frontend import FrontendPlan, measure_frontend
from loradeck_bench.serving.multilora import MultiloraPlan, measure_multilora
from loradeck_bench.serving.prompts import make_prompts
from loradeck_bench.serving.stage import stage
from loradeck_pocket import BASE
from loradeck_tasks.defaults import default_task

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


def quiet() -> Console:
    return Console(file=StringIO())


def test_flips_cliff_and_classification_on_one_server() -> None:
    flip_plan = flips.FlipPlan(
        flips=3, adapters=2, replies=60, before=2.0, settle=3.0, most_seconds=60.0, saturation_seconds=5.0, prompts=3
    )
    cliff_plan = cliff.CliffPlan(
        slots=2, multiples=(1, 4), seconds=4.0, stretches=1, saturation_seconds=5.0, concurrency=8, max_tokens=8
    )
    label_plan = classify.ClassifyPlan(rounds=1, single=4, together=8, prompt_tokens=100, concurrency=4)
    names = [f"cliff-{number}" for number in range(8)]
    with stage(BASE, quiet(), flips.STEPS) as place:
        revisions = flips.publish_revisions(place, flip_plan)
        for number, name in enumerate(names):
            place.publish(name, default_task("generate"), number)
        classify.publish_pair(place, label_plan)
        texts = [prompt.text for prompt in make_prompts(BASE, 64, 60)]
        settings = {
            "slots": 2, "host_adapters": 16, "engine.dtype": "float32", "engine.kv_cache_gib": 0.25,
            "engine.max_model_len": 256, "engine.enforce_eager": True,
        }  # fmt: skip
        with place.serve(settings) as server:
            flipped = run_fast(flips.measure_on_server(server.address, server.admin, place, revisions, flip_plan))
            fallen = run_fast(cliff.measure_on_server(server.address, names, texts, cliff_plan, lambda text: None))
            prompts = make_prompts(BASE, 8, label_plan.prompt_tokens)
            labelled = run_fast(classify.measure_on_server(server.address, prompts, label_plan, lambda text: None))
    assert (flipped["flips"], flipped["failed"], flipped["wrong_revision"]) == (3, 0, 0), flipped["wrong_examples"]
    assert (flipped["flips_never_answered"], flipped["flips_never_acknowledged"]) == (0, 0)
    assert flipped["replies_checked"] >= 60
    assert set(flipped) >= {"requests", "flip_to_first_token_ms", "ttft_p99_before_ms", "ttft_p99_during_ms"}
    assert [(row["adapters"], row["slots"], row["failed"]) for row in fallen["rows"]] == [(2, 2, 0), (8, 2, 0)]
    assert all(row["ttft_p99_ms"] >= row["ttft_p50_ms"] > 0 for row in fallen["rows"])
    assert {"one_pass", "generated_4"} <= set(labelled["by_way"])
    assert all(way["latency_ms"] > 0 for way in labelled["by_way"].values())


def test_front_end_beside_the_pipe_and_http() -> None:
    plan = FrontendPlan(
        rounds=1, streams=4, unary=2, prompt_tokens=40, output_tokens=8, unary_tokens=4, single=2, compiled=False,
        kv_cache_gib=0.1,
    )  # fmt: skip
    result = measure_frontend(BASE, plan, quiet())
    assert result["missing_tokens"] == {}
    for key in ("in_process_tokens_per_s", "grpc_tokens_per_s", "http_tokens_per_s", "grpc_ratio_in_process"):
        assert result[key] > 0
    assert "ttft_overhead_ms" in result
    # An engine that waits by spinning would slow the others down.
    assert max(result["idle_cores"].values()) < 0.8


def test_adapters_beside_their_base() -> None:
    plan = MultiloraPlan(rounds=1, replies=40, concurrency=8, output_tokens=8, stock=False, bare=False, compiled=False)
    result = measure_multilora(BASE, plan, quiet())
    assert result["wrong_tokens"] == 0
    assert result["replies"] >= 40
    assert result["ratio_to_base"] > 0
    assert (result["stock_tokens_per_s"], result["ratio_to_stock"]) == (None, None)

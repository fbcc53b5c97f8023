"""Metrics as Prometheus sees them: a live server is scraped, and names, kinds and labels are as promised."""

import asyncio
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_serve.observation.gauges import REFRESH_SECONDS
from loradeck_serve.observation.metrics import MOST_ADAPTERS, OTHER, Metrics
from tests.serve.conftest import Running, Start
from tests.serve.errors import failure

LABELS = {
    "loradeck_requests": {"adapter", "method", "code"},
    "loradeck_errors": {"adapter", "reason"},
    "loradeck_prompt_tokens": {"adapter"},
    "loradeck_output_tokens": {"adapter"},
    "loradeck_time_to_first_token_seconds": {"adapter"},
    "loradeck_time_per_output_token_seconds": {"adapter"},
    "loradeck_request_duration_seconds": {"adapter", "method"},
    "loradeck_queue_wait_seconds": {"adapter"},
    "loradeck_adapter_load_seconds": {"adapter", "tier"},
    "loradeck_adapter_load_failures": {"adapter", "reason"},
    "loradeck_residency": {"adapter", "residency"},
    "loradeck_adapter_swaps": {"adapter"},
    "loradeck_adapter_evictions": {"adapter"},
    "loradeck_requests_running": {"adapter"},
    "loradeck_requests_waiting": {"adapter"},
    "loradeck_adapters_resident": set(),
    "loradeck_slots_used": set(),
    "loradeck_alias_flips": {"adapter"},
    "loradeck_alias_flip_seconds": set(),
    "loradeck_kv_cache_used_ratio": set(),
    "loradeck_engine_requests_running": set(),
    "loradeck_engine_requests_waiting": set(),
    "loradeck_engine_restarts": set(),
    "loradeck_registry_age_seconds": set(),
    "loradeck_ready": set(),
    "loradeck_build_info": {"version", "engine", "dtype"},
    "loradeck_base_info": {"name", "revision", "digest"},
}
"""Label names by family, as the parser names it: without `_total`."""


async def scrape(running: Running) -> dict[str, Metric]:
    """Families of the server's metrics."""
    url = f"http://{running.server.addresses.metrics}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as reply:
            text: str = reply.read().decode()
            return text

    families = text_string_to_metric_families(await asyncio.to_thread(read))
    return {f.name: f for f in families}


def value(family: Metric, sample: str, **labels: str) -> float:
    """One sample, which must be there."""
    found = [s.value for s in family.samples if s.name == sample and labels.items() <= s.labels.items()]
    assert found, f"{sample} {labels} is missing"
    return sum(found)


async def use_everything(running: Running) -> None:
    """Whatever moves a metric, once."""
    await running.inference.Classify(inference.ClassifyRequest(adapter="clf", text="x"))
    await failure(running.inference.Classify(inference.ClassifyRequest(adapter="nope", text="x")))
    _ = [m async for m in running.inference.AnswerLong(inference.AnswerLongRequest(adapter="long", question="q",
                                                                                  context="c"))]  # fmt: skip
    await running.inference.AnswerShort(inference.AnswerShortRequest(adapter="short", question="q", context="c"))
    await running.admin.MoveAlias(adapters.MoveAliasRequest(name="clf", alias="prod", target="2"))
    await running.inference.Classify(inference.ClassifyRequest(adapter="clf", text="x"))
    for digest in ("long@2", "clf-text"):
        await running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter=digest))
    await running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="free"))


async def test_scraped_metrics_are_those_promised(start: Start) -> None:
    running = await start(host_adapters=3)
    running.engine.refuse.add((await running.server._catalog.resolve("free")).digest)
    with pytest.raises(Exception, match="refused by the test"):
        await use_everything(running)
    running.engine.gate.clear()
    waiting = asyncio.create_task(failure(running.inference.Classify(inference.ClassifyRequest(adapter="clf", text="x"),
                                                                     timeout=5)))  # fmt: skip
    await asyncio.sleep(1.5 * REFRESH_SECONDS)
    families = await scrape(running)
    assert value(families["loradeck_requests_running"], "loradeck_requests_running", adapter="clf") == 1
    waiting.cancel()
    missing = LABELS.keys() - families.keys()
    assert not missing
    for name, labels in LABELS.items():
        family = families[name]
        assert family.documentation, name
        shown = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert shown == labels, name
    assert (
        value(families["loradeck_requests"], "loradeck_requests_total", adapter="clf", method="Classify", code="OK")
        == 2
    )
    assert value(families["loradeck_errors"], "loradeck_errors_total", reason="NAME_NOT_FOUND") == 1
    assert value(families["loradeck_output_tokens"], "loradeck_output_tokens_total", adapter="long") == 10
    assert value(families["loradeck_prompt_tokens"], "loradeck_prompt_tokens_total", adapter="clf") > 2
    for histogram in ("time_to_first_token", "queue_wait"):
        name = f"loradeck_{histogram}_seconds"
        assert value(families[name], f"{name}_count", adapter="clf") >= 2
    per_token = families["loradeck_time_per_output_token_seconds"]
    assert value(per_token, "loradeck_time_per_output_token_seconds_count", adapter="long") == 1
    load = families["loradeck_adapter_load_seconds"]
    assert value(load, "loradeck_adapter_load_seconds_count", adapter="clf", tier="remote") == 2
    assert value(families["loradeck_residency"], "loradeck_residency_total", adapter="clf", residency="hot") >= 1
    assert value(families["loradeck_adapter_swaps"], "loradeck_adapter_swaps_total", adapter="clf") >= 2
    assert value(families["loradeck_adapter_evictions"], "loradeck_adapter_evictions_total") >= 1
    assert value(families["loradeck_alias_flips"], "loradeck_alias_flips_total", adapter="clf") == 1
    assert value(families["loradeck_kv_cache_used_ratio"], "loradeck_kv_cache_used_ratio") == 0.5
    assert value(families["loradeck_ready"], "loradeck_ready") == 1


async def test_names_follow_the_conventions_of_prometheus(start: Start) -> None:
    running = await start()
    for name, family in (await scrape(running)).items():
        assert re.fullmatch(r"loradeck_[a-z][a-z0-9_]*", name), name
        # Base units only, and a counter says so (the parser takes `_total` off).
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent|total|created)$", name), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name
        if family.type == "counter":
            assert all(s.name.endswith("_total") for s in family.samples), name


async def test_there_is_nothing_but_metrics_at_the_door(start: Start) -> None:
    running = await start()

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://{running.server.addresses.metrics}{path}", timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    found = {path: await asyncio.to_thread(status, path) for path in ("/metrics", "/metrics?name[]=x", "/nope", "/")}
    assert found == {"/metrics": 200, "/metrics?name[]=x": 200, "/nope": 404, "/": 404}


def test_adapter_names_beyond_the_bound_share_one_label() -> None:
    metrics = Metrics()
    labels = {metrics.label(f"adapter-{number}") for number in range(2 * MOST_ADAPTERS)}
    assert len(labels) == MOST_ADAPTERS + 1
    assert OTHER in labels
    assert metrics.label("adapter-0") == "adapter-0"


def test_every_metric_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    for family in Metrics().registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert f"`{family.name}{suffix}`" in text, f"{family.name}{suffix} is not described in docs/serving.md"

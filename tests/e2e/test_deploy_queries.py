"""Queries of dashboard, alerts and autoscaler: against the metrics of a real server, and in a real Prometheus."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from loradeck_client import LoradeckError, Sampling
from tests.deploy.queries import (
    GROUPING,
    MATCHER,
    METRIC,
    SELECTOR,
    adapter_queries,
    all_queries,
    dashboard_queries,
    recorded,
)
from tests.deploy.tools import DEPLOY, ROOT
from tests.e2e.conftest import Served
from tests.support.ports import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OF_PROMETHEUS = {"instance", "job", "le"}
Exported = dict[str, list[dict[str, str]]]
"""Labels of every sample, by the sample's name; a family without samples has none."""


@pytest.fixture(scope="module")
def asked(server: Served) -> Served:
    """The session's server after some requests: answered, streamed, refused."""
    with server.client() as client:
        for _ in range(3):
            client.classify("The bank opened a branch.", adapter="clf")
        with client.answer_long("What?", context="A bank.", adapter="long", sampling=Sampling(max_tokens=8)) as stream:
            list(stream)
        with pytest.raises(LoradeckError):
            client.classify("x", adapter="nobody")
    return server


@pytest.fixture(scope="module")
def exported(asked: Served) -> Exported:
    found: Exported = {}
    with urllib.request.urlopen(f"http://{asked.metrics}/metrics", timeout=10) as reply:
        for family in text_string_to_metric_families(reply.read().decode()):
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
            for suffix in suffixes.get(family.type, ("",)):
                found.setdefault(family.name + suffix, [])
            for sample in family.samples:
                found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


@pytest.mark.parametrize("query", all_queries())
def test_query_names_only_what_the_server_exports(query: str, exported: Exported) -> None:
    names = {name for name in METRIC.findall(query) if f"{name}:" not in query}
    unknown = names - exported.keys()
    assert not unknown
    for name, matchers in SELECTOR.findall(query):
        labels = {label for sample in exported[name] for label in sample}
        if labels:
            assert {label for label, _, _ in MATCHER.findall(matchers)} - OF_PROMETHEUS <= labels, name
    grouped = {label.strip() for labels in GROUPING.findall(query) for label in labels.split(",")} - OF_PROMETHEUS
    known = {label for name in names for sample in exported.get(name, ()) for label in sample}
    if known:
        assert grouped <= known


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/serving.md"])
def test_page_names_only_what_the_server_exports(page: str, exported: Exported) -> None:
    named = {name for name in METRIC.findall((ROOT / page).read_text()) if not list(ROOT.glob(f"*/{name}"))}
    assert len(named) > 5
    assert {name for name in named if name not in exported and f"{name}_bucket" not in exported} == set()


Ask = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def prometheus(asked: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A Prometheus that has scraped the server and evaluated the rules; asks it one query."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian's package prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", folder)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [asked.metrics]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        program, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(query: str) -> list[Any]:
        text = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{text}", timeout=10) as reply:
            answer = json.loads(reply.read())
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def scraped() -> bool:
        try:
            return bool(ask("count_over_time(loradeck_ready[1m]) > 2")) and bool(ask("loradeck:server_faults:ratio"))
        except OSError:
            return False

    try:
        deadline = time.monotonic() + 60
        while not scraped():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, Path(folder / "log").read_text()
            time.sleep(0.3)
        yield ask
    finally:
        process.terminate()
        process.wait(20)


def until(check: Callable[[], list[Any]]) -> list[Any]:
    """What `check` finds, in a while: a scrape that came late leaves a gap of a second."""
    end = time.monotonic() + 30
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def test_every_query_runs_and_those_with_samples_give_series(prometheus: Ask, exported: Exported) -> None:
    silent = []
    for query in [*dashboard_queries(), *adapter_queries(), *recorded().values()]:
        has_samples = all(exported.get(name) for name in METRIC.findall(query) if name in exported)
        series = partial(prometheus, query)
        if not series() and has_samples and not until(series):
            silent.append(query)
    assert not silent


def test_a_server_that_is_well_raises_no_alert(prometheus: Ask) -> None:
    # The refused request of an unknown adapter is a caller's mistake.
    assert until(lambda: prometheus('up{job="loradeck"} == 1'))
    assert prometheus('ALERTS{alertname=~"Loradeck.*",alertstate="firing"}') == []

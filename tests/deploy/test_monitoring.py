"""Prometheus and Grafana, without a server: rules and their tests, and a dashboard whose queries parse."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.queries import alerts, dashboard, dashboard_queries
from tests.deploy.tools import DEPLOY, ROOT, document, program, run

PROMETHEUS = DEPLOY / "prometheus"


def promtool() -> str:
    return program("promtool", "Debian's package prometheus")


def test_configuration_and_rules_are_valid() -> None:
    run(promtool(), "check", "config", PROMETHEUS / "prometheus.yaml")


def test_alerts_fire_when_they_should_and_not_before() -> None:
    run(promtool(), "test", "rules", PROMETHEUS / "alerts_test.yaml")


def test_every_alert_has_its_page_in_the_runbook_and_the_runbook_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    described = set(re.findall(r"^### (Loradeck\w+)", text, re.MULTILINE))
    assert described == {alert["alert"] for alert in alerts()}


def test_every_alert_has_a_severity_and_says_where() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "warning"), alert["alert"]
        assert "$labels.instance" in alert["annotations"]["summary"], alert["alert"]


def test_dashboard_queries_parse(tmp_path: Path) -> None:
    rules = [{"record": f"q:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool(), "check", "rules", file)


def test_dashboard_is_laid_out_without_overlaps_and_explains_itself() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len(panels) >= 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {json.dumps(target["datasource"]) for panel in panels for target in panel.get("targets", ())}
    assert len(sources) == 1


def test_grafana_is_given_the_dashboard_that_is_here() -> None:
    provider = document(DEPLOY / "grafana" / "provisioning" / "dashboards" / "loradeck.yaml")["providers"][0]
    mounts = document(DEPLOY / "compose" / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"../grafana/loradeck.json:{provider['options']['path']}/loradeck.json:ro" in mounts

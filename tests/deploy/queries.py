"""The PromQL of dashboard and alerts, and what it names: metrics, labels and their values."""

import json
import re
from typing import Any

from tests.deploy.tools import DEPLOY, document

METRIC = re.compile(r"\bloradeck_\w+")
SELECTOR = re.compile(r"\b(loradeck_\w+)\{([^}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"((?:[^\"\\]|\\.)*)\"")
GROUPING = re.compile(r"\bby\s*\(([^)]*)\)")


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for rule in _rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """The recorded series and their queries."""
    return {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    found = json.loads((DEPLOY / "grafana" / "loradeck.json").read_text())
    assert isinstance(found, dict)
    return found


def dashboard_queries() -> list[str]:
    """The dashboard's queries as Grafana sends them with every server and adapter chosen."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found.append(re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"]["query"]))
    values = {"$instance": ".*", "$adapter": ".*", "$__rate_interval": "1m", "$__range": "1h"}
    for name, value in values.items():
        found = [query.replace(name, value) for query in found]
    return found


def adapter_queries() -> list[str]:
    """The autoscaler's query as prometheus-adapter sends it."""
    folder = DEPLOY / "kubernetes" / "components" / "autoscaling"
    (rule,) = document(folder / "adapter-rules.yaml")["rules"]["custom"]
    series = METRIC.search(rule["seriesQuery"])
    assert series is not None
    values = {"<<.Series>>": series[0], "<<.LabelMatchers>>": 'job="loradeck"', "<<.GroupBy>>": "instance"}
    query = str(rule["metricsQuery"])
    for name, value in values.items():
        query = query.replace(name, value)
    return [query]


def all_queries() -> list[str]:
    """Everything that is asked of Prometheus."""
    return [*dashboard_queries(), *adapter_queries(), *(alert["expr"] for alert in alerts()), *recorded().values()]


def _rules() -> list[dict[str, Any]]:
    groups = document(DEPLOY / "prometheus" / "alerts.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]

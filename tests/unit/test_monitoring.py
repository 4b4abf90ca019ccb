"""Alert rules and dashboards are what the metric table makes them, and nothing else can be in them."""

import json
import re

import promql_parser
import pytest
import yaml

from gateway.telemetry.metric_catalog import BY_NAME
from tests.house import monitoring
from tests.house.monitoring import ALERTS, FILES, FOLDER, PANELS, in_cloud, m

EXPRESSIONS = [alert.expression for alert in ALERTS] + [
    line for panel in PANELS for line in panel.lines.values()
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_current(name: str):
    assert (FOLDER / name).read_text(encoding="utf-8") == FILES[name](), "make it anew: make docs"


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_only_metrics_that_exist(name: str):
    found = set(re.findall(r"\bchips_[a-z_]+", (FOLDER / name).read_text(encoding="utf-8")))
    assert len(found) > 10
    for metric in found:
        base = re.sub("_(bucket|sum|count)$", "", metric)
        assert metric in BY_NAME or BY_NAME[base].kind == "histogram", metric


def test_the_generator_refuses_what_does_not_exist():
    for name, labels in (
        ("chips_nothing_total", {}),
        ("chips_requests_total", {"colour": "x"}),
        ("chips_requests_total_sum", {}),
    ):
        with pytest.raises(KeyError):
            m(name, **labels)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_prometheus_and_cloud_monitoring_can_read_it(expression: str):
    promql_parser.parse(expression)
    promql_parser.parse(in_cloud(expression))


def test_rules_have_what_whoever_is_woken_needs():
    rules = yaml.safe_load((FOLDER / "prometheus/rules.yaml").read_text())["groups"][0]["rules"]
    page = (FOLDER.parents[1] / "docs/how-to/alerts.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("#")
    }
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["runbook"].partition("#")[2] in anchors, rule["alert"]


def test_a_burn_is_seen_over_a_long_and_a_short_window():
    expression = monitoring.burning("availability", 14.4, "1h", "5m")
    assert "[1h]" in expression
    assert "[5m]" in expression
    assert "14.4 * (1 - max by (model) (chips_objective_availability_ratio))" in expression


def test_cloud_monitoring_gets_whole_policies():
    policies = json.loads((FOLDER / "cloud-monitoring/alerts.json").read_text())
    assert len(policies) == len(ALERTS)
    for policy in policies:
        (condition,) = policy["conditions"]
        assert condition["conditionPrometheusQueryLanguage"]["query"]
        assert "{{" not in policy["documentation"]["content"]

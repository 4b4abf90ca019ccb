# Long: one document of dashboards and alerts, written as a document.
"""Alert rules and dashboards, made from the metric table, so that they cannot name a metric or a label that is not there."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.telemetry.metric_catalog import BY_NAME

FOLDER = Path(__file__).parents[2] / "deploy/monitoring"
_RUNBOOK = "docs/how-to/alerts.md"
_CLOUD_PREFIX = (
    "workload_googleapis_com:"  # how PromQL in Cloud Monitoring names what our exporter writes there
)


def m(name: str, **matchers: str) -> str:
    """A metric with label matchers; a value that begins with `!` must not match. Histograms by `name_bucket` and so on."""
    base = re.sub("_(bucket|sum|count)$", "", name)
    metric = BY_NAME[name] if name in BY_NAME else BY_NAME[base]
    if name not in BY_NAME and metric.kind != "histogram":
        raise KeyError(name)
    for label in matchers:
        if label not in metric.labels:
            raise KeyError(f"{name} has no label {label}")
    text = ",".join(
        f'{label}!="{value[1:]}"' if value.startswith("!") else f'{label}="{value}"'
        for label, value in matchers.items()
    )
    return f"{name}{{{text}}}" if text else name


def by(metric: str, *labels: str) -> str:
    """Check that a histogram or counter has `labels` to add up by; the clause itself."""
    have = BY_NAME[re.sub("_(bucket|sum|count)$", "", metric) if metric not in BY_NAME else metric].labels
    for label in labels:
        if label != "le" and label not in have:
            raise KeyError(f"{metric} has no label {label}")
    return f"by ({', '.join(labels)})"


def missed(objective: str, window: str) -> str:
    """The share of requests that missed a model's objective."""
    misses = m("chips_objective_misses_total", objective=objective)
    requests = m("chips_requests_total", model="!")
    return (
        f"(sum {by('chips_objective_misses_total', 'model')} (rate({misses}[{window}]))"
        f" / sum {by('chips_requests_total', 'model')} (rate({requests}[{window}])))"
    )


def burning(objective: str, factor: float, long: str, short: str) -> str:
    """Whether the error budget burns `factor` times too fast, over a long window and still over a short one."""
    if objective == "availability":
        target = m("chips_objective_availability_ratio")
        limit = f"{factor} * (1 - max {by('chips_objective_availability_ratio', 'model')} ({target}))"
        return " and ".join(f"({missed(objective, window)} > on (model) {limit})" for window in (long, short))
    has_one = f"max {by('chips_objective_latency_seconds', 'model')} ({m('chips_objective_latency_seconds')})"
    within = " and ".join(f"({missed(objective, window)} > {factor * 0.01:g})" for window in (long, short))
    return f"{within} and on (model) {has_one}"


def quantile(share: float, histogram: str, *labels: str, window: str = "5m", **matchers: str) -> str:
    bucket = f"{histogram}_bucket"
    return f"histogram_quantile({share}, sum {by(bucket, 'le', *labels)} (rate({m(bucket, **matchers)}[{window}])))"


class Alert(NamedTuple):
    name: str
    expression: str
    held: str
    severity: str  # page: wake somebody; ticket: in working hours
    summary: str
    anchor: str


# factor, long window, short window, severity: the SRE workbook's, for a budget of 30 days
_BURNS = (
    (14.4, "1h", "5m", "page"),
    (6.0, "6h", "30m", "page"),
    (3.0, "1d", "2h", "ticket"),
    (1.0, "3d", "6h", "ticket"),
)

ALERTS = [
    *(
        Alert(
            f"Chips{objective.title()}Burn{long}",
            burning(objective, factor, long, short),
            "2m" if severity == "page" else "15m",
            severity,
            f"{{{{ $labels.model }}}} spends its {objective} budget {factor:g} times too fast ({long} and {short})",
            "the-error-budget-burns",
        )
        for objective in ("availability", "latency")
        for factor, long, short, severity in _BURNS
    ),
    Alert(
        "ChipsGatewayErrors",
        f"sum (rate({m('chips_errors_total', side='gateway')}[10m])) / sum (rate({m('chips_requests_total')}[10m])) > 0.01",
        "5m",
        "page",
        "More than 1 % of all requests fail on the gateway's own side",
        "the-gateway-itself-fails",
    ),
    Alert(
        "ChipsRegistryStale",
        f"max ({m('chips_registry_age_seconds')}) > 60",
        "5m",
        "page",
        "The registry has confirmed nothing for {{ $value | humanizeDuration }}: changes and revocations do not arrive",
        "the-registry-is-away",
    ),
    Alert(
        "ChipsRegistryHeld",
        f"max ({m('chips_registry_held')}) > 0",
        "0s",
        "page",
        "The registry is suddenly another one, or an older one; the last good state is served for a few minutes",
        "the-gateway-reads-a-different-registry",
    ),
    Alert(
        "ChipsRegistryFallback",
        f"max ({m('chips_registry_fallback')}) > 0",
        "2m",
        "page",
        "A gateway has started from the copy of the registry, for the registry itself does not answer it",
        "started-from-the-copy",
    ),
    Alert(
        "ChipsRolloutReturned",
        f"max {by('chips_rollout_returned', 'model')} ({m('chips_rollout_returned')}) > 0",
        "0s",
        "ticket",
        "{{ $labels.model }}: the new version was found to be worse, and its traffic was taken away",
        "a-rollout-has-returned",
    ),
    Alert(
        "ChipsRolloutUnattended",
        f"max ({m('chips_rollout_unattended')}) > 0",
        "2m",
        "page",
        "A rollout is under way and nobody watches it: a bad version would not be taken back",
        "a-rollout-is-unattended",
    ),
    Alert(
        "ChipsRolloutHeld",
        f"max {by('chips_rollout_held', 'model')} ({m('chips_rollout_held')}) > 0",
        "1h",
        "ticket",
        "{{ $labels.model }}: its rollout waits for a person",
        "a-rollout-is-held",
    ),
    Alert(
        "ChipsRegistryProblems",
        f"max ({m('chips_registry_problems')}) > 0",
        "5m",
        "ticket",
        "{{ $value }} registry documents cannot be used",
        "a-registry-document-cannot-be-used",
    ),
    Alert(
        "ChipsEmergency",
        f"max ({m('chips_emergencies')}) > 0",
        "0s",
        "ticket",
        "{{ $value }} versions serve on one person's word, in an emergency that nobody has reviewed yet",
        "an-emergency-is-to-be-reviewed",
    ),
    Alert(
        "ChipsBudgetUsedUp",
        f"max {by('chips_budget_spent_ratio', 'budget')} ({m('chips_budget_spent_ratio')}) >= 1",
        "0s",
        "ticket",
        "The budget {{ $labels.budget }} is used up",
        "a-budget-is-used-up",
    ),
    Alert(
        "ChipsBudgetHigh",
        f"max {by('chips_budget_spent_ratio', 'budget')} ({m('chips_budget_spent_ratio')}) >= 0.8 < 1",
        "5m",
        "ticket",
        "{{ $value | humanizePercentage }} of the budget {{ $labels.budget }} is spent",
        "a-budget-is-used-up",
    ),
    Alert(
        "ChipsAuditUnanchored",
        f"max ({m('chips_audit_unanchored_seconds')}) > 3600",
        "5m",
        "ticket",
        "The head of the registry's history has not been kept in the second place for {{ $value | humanizeDuration }}",
        "the-history-is-not-kept-in-the-second-place",
    ),
    Alert(
        "ChipsGone",
        f"absent({m('chips_workers')})",
        "5m",
        "page",
        "No gateway reports any figures",
        "no-figures-at-all",
    ),
    Alert(
        "ChipsOverheadHigh",
        f"{quantile(0.99, 'chips_overhead_seconds')} > 0.05",
        "15m",
        "ticket",
        "The gateway itself takes {{ $value | humanizeDuration }} of a request (p99)",
        "the-gateway-is-slow",
    ),
    Alert(
        "ChipsTelemetryLost",
        f"sum (rate({m('chips_traces_dropped_total')}[15m])) + sum (rate({m('chips_log_lines_dropped_total')}[15m])) > 0",
        "30m",
        "ticket",
        "Traces or log lines are being lost",
        "traces-or-log-lines-are-lost",
    ),
    Alert(
        "ChipsCallersTurnedAway",
        f"sum (rate({m('chips_connections_turned_away_total', reason='refused')}[5m]))"
        f" + sum (rate({m('chips_connections_turned_away_total', reason='files')}[5m])) > 0",
        "5m",
        "page",
        "New callers are not let in: all connections are busy, or the process may open no more files",
        "callers-are-turned-away",
    ),
    Alert(
        "ChipsBackendFull",
        f"sum {by('chips_backend_refusals_total', 'model')} (rate({m('chips_backend_refusals_total')}[15m]))"
        f" / sum {by('chips_requests_total', 'model')} (rate({m('chips_requests_total', model='!')}[15m])) > 0.05",
        "15m",
        "ticket",
        "The backend of {{ $labels.model }} refuses requests although it is sent only what it has been seen to run",
        "a-backend-is-full",
    ),
    Alert(
        "ChipsColdStarts",
        f"sum {by('chips_cold_starts_total', 'model')} (rate({m('chips_cold_starts_total')}[1h]))"
        f" / sum {by('chips_requests_total', 'model')} (rate({m('chips_requests_total', model='!')}[1h])) > 0.02",
        "30m",
        "ticket",
        "More than 2 % of the requests to {{ $labels.model }} wait for an instance to start",
        "cold-starts",
    ),
]


class Panel(NamedTuple):
    title: str
    unit: str  # Grafana's word
    lines: dict[str, str]  # legend -> expression
    text: str = ""


_REQUESTS = m("chips_requests_total", model="!")
PANELS = [
    Panel(
        "Requests per second",
        "reqps",
        {"{{model}}": f"sum {by('chips_requests_total', 'model')} (rate({_REQUESTS}[5m]))"},
        "By model. What was refused before routing is not in here.",
    ),
    Panel(
        "Failed, on our or a backend's side",
        "percentunit",
        {
            "{{model}} {{side}}": f"sum {by('chips_errors_total', 'model', 'side')} (rate({m('chips_errors_total', side='!caller')}[5m]))"
            f" / on (model) group_left sum {by('chips_requests_total', 'model')} (rate({_REQUESTS}[5m]))"
        },
    ),
    Panel(
        "Latency p99 by version",
        "s",
        {"{{model}}@{{version}}": quantile(0.99, "chips_request_seconds", "model", "version", model="!")},
        "A version that stands apart is the one to look at.",
    ),
    Panel(
        "Latency p50 by version",
        "s",
        {"{{model}}@{{version}}": quantile(0.5, "chips_request_seconds", "model", "version", model="!")},
    ),
    Panel(
        "The gateway's own share",
        "s",
        {
            "p50": quantile(0.5, "chips_overhead_seconds"),
            "p99": quantile(0.99, "chips_overhead_seconds"),
        },
    ),
    Panel(
        "Error budget spent in the last hour, times the allowed pace",
        "none",
        {
            "{{model}} availability": f"{missed('availability', '1h')} / on (model) (1 - max {by('chips_objective_availability_ratio', 'model')} ({m('chips_objective_availability_ratio')}))",
            "{{model}} latency": f"{missed('latency', '1h')} / 0.01",
        },
        "Above 1, the budget does not last.",
    ),
    Panel(
        "In flight and waiting",
        "none",
        {
            "in flight": f"sum ({m('chips_in_flight_requests')})",
            "{{model}} queued per second": f"sum {by('chips_queue_total', 'model')} (rate({m('chips_queue_total', model='!')}[5m]))",
        },
    ),
    Panel(
        "Retries and cold starts per second",
        "none",
        {
            "{{model}} retries": f"sum {by('chips_retries_total', 'model')} (rate({m('chips_retries_total', model='!')}[5m]))",
            "{{model}} cold starts": f"sum {by('chips_cold_starts_total', 'model')} (rate({m('chips_cold_starts_total', model='!')}[5m]))",
        },
    ),
    Panel(
        "Connections to backends",
        "none",
        {
            "open": f"sum ({m('chips_pool_connections')})",
            "idle": f"sum ({m('chips_pool_idle_connections')})",
            "opened per second": f"sum (rate({m('chips_pool_opens_total')}[5m]))",
            "{{backend}} cannot be connected to, per second": f"sum {by('chips_pool_failures_total', 'backend')} (rate({m('chips_pool_failures_total')}[5m])) > 0",
            "{{backend}} left alone": f"sum {by('chips_breaker_open', 'backend')} ({m('chips_breaker_open')}) > 0",
        },
    ),
    Panel(
        "Waiting now",
        "none",
        {
            "{{model}} for its turn": f"sum {by('chips_model_queued_requests', 'model')} ({m('chips_model_queued_requests')})",
            "{{backend}} for a connection": f"sum {by('chips_pool_waiting_requests', 'backend')} ({m('chips_pool_waiting_requests')}) > 0",
        },
    ),
    Panel(
        "Registry: age and generation",
        "s",
        {
            "age": f"max ({m('chips_registry_age_seconds')})",
            "from the copy": f"sum ({m('chips_registry_fallback')})",
            "held": f"sum ({m('chips_registry_held')})",
            "generations apart": f"max ({m('chips_registry_generation')}) - min ({m('chips_registry_generation')})",
        },
    ),
    Panel(
        "Backend seconds per second, by caller",
        "none",
        {
            "{{caller}}": f"topk(10, sum {by('chips_caller_backend_seconds_total', 'caller')} (rate({m('chips_caller_backend_seconds_total')}[5m])))"
        },
    ),
    Panel(
        "CPU and memory of the gateway",
        "none",
        {
            "CPUs": f"sum (rate({m('chips_process_cpu_seconds_total')}[5m]))",
            "GiB": f"sum ({m('chips_process_memory_bytes')}) / 1073741824",
        },
    ),
]


def in_cloud(expression: str) -> str:
    """The same expression with the names that Cloud Monitoring gives our metrics."""
    return re.sub(r"\bchips_[a-z_]+", lambda found: _CLOUD_PREFIX + found.group(), expression)


def prometheus_rules() -> str:
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.held,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook": f"{_RUNBOOK}#{alert.anchor}"},
        }
        for alert in ALERTS
    ]
    text: str = yaml.safe_dump({"groups": [{"name": "chips", "rules": rules}]}, sort_keys=False, width=10_000)
    return "# Made from the metric table: make docs\n" + text


def grafana_dashboard() -> str:
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.text,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": (number % 2) * 12, "y": (number // 2) * 8, "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"]}},
            "targets": [
                {"refId": chr(65 + index), "expr": expression, "legendFormat": legend}
                for index, (legend, expression) in enumerate(panel.lines.items())
            ],
        }
        for number, panel in enumerate(PANELS)
    ]
    dashboard = {
        "uid": "chips",
        "title": "CHIPS",
        "tags": ["chips"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=2) + "\n"


def cloud_dashboard() -> str:
    tiles = [
        {
            "xPos": (number % 2) * 24,
            "yPos": (number // 2) * 16,
            "width": 24,
            "height": 16,
            "widget": {
                "title": panel.title,
                "xyChart": {
                    "dataSets": [
                        {
                            "plotType": "LINE",
                            "legendTemplate": re.sub(r"{{(\w+)}}", r"${metric.labels.\1}", legend),
                            "timeSeriesQuery": {"prometheusQuery": in_cloud(expression)},
                        }
                        for legend, expression in panel.lines.items()
                    ]
                },
            },
        }
        for number, panel in enumerate(PANELS)
    ]
    return (
        json.dumps({"displayName": "CHIPS", "mosaicLayout": {"columns": 48, "tiles": tiles}}, indent=2) + "\n"
    )


def cloud_alerts() -> str:
    """One policy each, as `gcloud monitoring policies create --policy-from-file` and Terraform's `jsondecode` take it."""
    return json.dumps([_policy(alert) for alert in ALERTS], indent=2) + "\n"


def _policy(alert: Alert) -> dict[str, Any]:
    summary = re.sub(r"{{ \$labels\.(\w+) }}", r"${metric.label.\1}", alert.summary)
    return {
        "displayName": alert.name,
        "combiner": "OR",
        "severity": "CRITICAL" if alert.severity == "page" else "WARNING",
        "documentation": {
            "mimeType": "text/markdown",
            "content": re.sub(r"{{ \$value[^}]*}}", "it", summary)
            + f". What to do: {_RUNBOOK}#{alert.anchor}",
        },
        "conditions": [
            {
                "displayName": alert.name,
                "conditionPrometheusQueryLanguage": {
                    "query": in_cloud(alert.expression),
                    "duration": f"{_seconds(alert.held)}s",
                    "evaluationInterval": "60s",
                },
            }
        ],
    }


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


FILES = {
    "prometheus/rules.yaml": prometheus_rules,
    "grafana/dashboard.json": grafana_dashboard,
    "cloud-monitoring/dashboard.json": cloud_dashboard,
    "cloud-monitoring/alerts.json": cloud_alerts,
}

"""The catalog of all metrics.

It gives each one's name, kind, unit, labels and meaning. Exposition, alerts, dashboards and the reference page read it.
"""

from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    """The definition of one metric. `text` is its help."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str  # of the value; empty for a count
    labels: tuple[str, ...]
    text: str


# Seconds. Fine enough that a quantile read from them is off by a third at most.
LATENCY_BOUNDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
OVERHEAD_BOUNDS: Final = (
    *(0.000025, 0.00005, 0.0001, 0.00015, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0),
)

_VERSION = ("model", "version")

METRICS: Final = (
    Metric(
        "chips_requests_total",
        "counter",
        "",
        (*_VERSION, "status"),
        "Requests answered, by HTTP status. 499: the caller left first. Without a model: refused before routing, or, with version `own-pages`, for the gateway itself.",
    ),
    Metric(
        "chips_errors_total",
        "counter",
        "",
        (*_VERSION, "side", "code"),
        "Requests that ended badly. `side` is who can fix it: caller, gateway, backend; `code` as in the problem document, or `answered-5xx` for a backend's own.",
    ),
    Metric(
        "chips_request_seconds",
        "histogram",
        "seconds",
        _VERSION,
        "From the first byte of the request's head to the last of the answer.",
    ),
    Metric(
        "chips_backend_seconds",
        "histogram",
        "seconds",
        _VERSION,
        "Of that, the time spent on attempts at the backend.",
    ),
    Metric(
        "chips_overhead_seconds",
        "histogram",
        "seconds",
        (),
        "Of that, what the gateway itself took: neither at the backend nor waiting in the queue, for a small body, or for limits counted in Redis.",
    ),
    Metric("chips_queue_total", "counter", "", _VERSION, "Requests that had to wait for their turn."),
    Metric(
        "chips_queue_seconds_total",
        "counter",
        "seconds",
        _VERSION,
        "Time that requests waited for their turn.",
    ),
    Metric("chips_retries_total", "counter", "", _VERSION, "Attempts beyond the first of a request."),
    Metric(
        "chips_cold_starts_total",
        "counter",
        "",
        _VERSION,
        "Answers that were more than a second later than the backend itself accounts for: an instance was starting.",
    ),
    Metric("chips_request_bytes_total", "counter", "bytes", _VERSION, "Request bodies taken."),
    Metric("chips_response_bytes_total", "counter", "bytes", _VERSION, "Answer bodies given."),
    Metric(
        "chips_objective_misses_total",
        "counter",
        "",
        ("model", "objective"),
        "Requests that missed the model's objective: `availability` (failed on our or the backend's side) or `latency` (answered later than its limit).",
    ),
    Metric(
        "chips_objective_availability_ratio",
        "gauge",
        "ratio",
        ("model",),
        "The share of requests that must not fail, where the model's policy sets one.",
    ),
    Metric(
        "chips_objective_latency_seconds",
        "gauge",
        "seconds",
        ("model",),
        "The time within which 99 % must be answered, where the model's policy sets one.",
    ),
    Metric(
        "chips_caller_requests_total", "counter", "", ("caller", "model"), "Requests by caller and model."
    ),
    Metric(
        "chips_caller_backend_seconds_total",
        "counter",
        "seconds",
        ("caller", "model"),
        "Backend time used by caller and model, for showback.",
    ),
    Metric(
        "chips_edge_refusals_total",
        "counter",
        "",
        ("by",),
        "Refused by the allowlist, a key's or model's networks, a limit, or the ration of unknown credentials of an address; including those that report-only mode let pass.",
    ),
    Metric("chips_connections", "gauge", "", (), "Connections that callers hold now."),
    Metric(
        "chips_connections_turned_away_total",
        "counter",
        "",
        ("reason",),
        "Connections closed or not taken, so that strangers do not hold what others need: `silent` (no request came in time), `half-head`, `evicted` (idle, and another caller needed the place), `refused` (all were busy), `peer` (one address had too many), `files` (the process may open no more).",
    ),
    Metric("chips_in_flight_requests", "gauge", "", (), "Requests at a backend, or waiting for one, now."),
    Metric(
        "chips_model_in_flight_requests",
        "gauge",
        "",
        ("model",),
        "Requests at a backend now, by model; idle ones are left out.",
    ),
    Metric(
        "chips_model_queued_requests",
        "gauge",
        "",
        ("model",),
        "Requests that wait for their turn at a model now; models for which none wait are left out.",
    ),
    Metric(
        "chips_model_window_requests",
        "gauge",
        "",
        ("model",),
        "Requests that may be at the backends of a model at once, as learnt so far, where they declare a concurrency.",
    ),
    Metric(
        "chips_backend_refusals_total",
        "counter",
        "",
        ("model",),
        "Answers by which a backend refused (429, or 503 with Retry-After) and after which the request waited again or was refused.",
    ),
    Metric(
        "chips_registry_age_seconds",
        "gauge",
        "seconds",
        (),
        "Since the registry last confirmed the snapshot.",
    ),
    Metric("chips_registry_generation", "gauge", "", (), "Generation of the snapshot that is served from."),
    Metric("chips_registry_connected", "gauge", "", (), "1 while the registry answers."),
    Metric(
        "chips_registry_fallback",
        "gauge",
        "",
        (),
        "1 while the snapshot comes from the fallback copy, because the registry has not answered since the start.",
    ),
    Metric(
        "chips_registry_held",
        "gauge",
        "",
        (),
        "1 while the last good snapshot is kept, because the registry is suddenly another one, or an older one.",
    ),
    Metric(
        "chips_audit_unanchored_seconds",
        "gauge",
        "seconds",
        (),
        "For how long the head of the history could not be kept in the second place; only where there is one.",
    ),
    Metric(
        "chips_rollout_percent",
        "gauge",
        "",
        ("model",),
        "The candidate's share of the traffic, in percent, while a rollout is running or held.",
    ),
    Metric(
        "chips_rollout_held",
        "gauge",
        "",
        ("model",),
        "1 while the model's rollout is held: it goes on only when a person says so.",
    ),
    Metric(
        "chips_rollout_returned",
        "gauge",
        "",
        ("model",),
        "1 where the model's last rollout has returned to 0 %: its candidate was found to be worse.",
    ),
    Metric(
        "chips_rollout_unattended",
        "gauge",
        "",
        (),
        "1 while a rollout is under way and no controller has shown a sign of life for a minute.",
    ),
    Metric(
        "chips_rollout_steps_total",
        "counter",
        "",
        ("model",),
        "Steps of rollouts that this process has taken: advances, returns and holds.",
    ),
    Metric(
        "chips_shadow_sampled_total",
        "counter",
        "",
        ("model",),
        "Requests that the model's running shadow has picked, in this process.",
    ),
    Metric(
        "chips_shadow_dropped_total",
        "counter",
        "",
        ("model",),
        "Of those, the ones that did not fit the shadow's budget and were left out.",
    ),
    Metric(
        "chips_budget_spent_ratio",
        "gauge",
        "",
        ("budget",),
        "Share of a budget that is spent in its period, as far as this gateway knows; 1 is all of it.",
    ),
    Metric(
        "chips_emergencies",
        "gauge",
        "",
        (),
        "Versions that serve on one person's word, in an emergency that nobody has reviewed yet.",
    ),
    Metric("chips_registry_models", "gauge", "", (), "Models in the snapshot."),
    Metric("chips_registry_problems", "gauge", "", (), "Registry documents that cannot be used."),
    Metric(
        "chips_pool_connections",
        "gauge",
        "",
        ("backend",),
        "Connections to a backend that are open, idle ones included. `backend` is scheme, host and port, here and below.",
    ),
    Metric("chips_pool_idle_connections", "gauge", "", ("backend",), "Of these, the idle ones."),
    Metric(
        "chips_pool_waiting_requests", "gauge", "", ("backend",), "Requests that wait for a connection now."
    ),
    Metric("chips_pool_opens_total", "counter", "", ("backend",), "Connections opened."),
    Metric("chips_pool_reuses_total", "counter", "", ("backend",), "Requests that found a connection open."),
    Metric("chips_pool_waits_total", "counter", "", ("backend",), "Requests that had to wait for one."),
    Metric("chips_pool_failures_total", "counter", "", ("backend",), "Connections that could not be opened."),
    Metric(
        "chips_breaker_open",
        "gauge",
        "",
        ("backend",),
        "1 while a backend whose connections timed out again and again is left alone, in each process.",
    ),
    Metric(
        "chips_breaker_refusals_total",
        "counter",
        "",
        ("backend",),
        "Requests refused at once because of that.",
    ),
    Metric("chips_traces_kept_total", "counter", "", ("why",), "Traces kept, and why."),
    Metric(
        "chips_traces_dropped_total",
        "counter",
        "",
        ("exporter",),
        "Traces that a full queue or a failing exporter cost, by exporter.",
    ),
    Metric(
        "chips_helper_restarts_total",
        "counter",
        "",
        ("helper",),
        "Tries after a failure of a thread or task in the background, by what it does. The log says why, once.",
    ),
    Metric(
        "chips_log_lines_dropped_total",
        "counter",
        "",
        (),
        "Log lines that were lost: the log took no more (a full disk, a slow reader), or nobody can read it.",
    ),
    Metric("chips_workers", "gauge", "", (), "Gateway processes that these figures are the sum of."),
    Metric(
        "chips_process_cpu_seconds_total", "counter", "seconds", (), "CPU time of the gateway's processes."
    ),
    Metric("chips_process_memory_bytes", "gauge", "bytes", (), "Resident memory of the gateway's processes."),
)

BY_NAME: Final = {metric.name: metric for metric in METRICS}

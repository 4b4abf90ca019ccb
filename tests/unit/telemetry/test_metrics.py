import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest, BrokenUpstreamResponse, Overloaded
from gateway.core.model import Policy
from gateway.telemetry.merge_metrics import merge_states, quantile
from gateway.telemetry.metric_catalog import BY_NAME, LATENCY_BOUNDS, METRICS
from gateway.telemetry.metrics import OTHER, RequestMetrics, parse_server_timing, usage_by_caller
from gateway.telemetry.prometheus_exposition import render_exposition
from tests.unit.telemetry.exchanges import make_exchange

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|inf)')


def scrape(metrics: RequestMetrics) -> dict[str, float]:
    """What Prometheus would read; every line must be one it can read."""
    values = {}
    for line in render_exposition(metrics.live_state()).decode().splitlines():
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name = re.sub("_(bucket|sum|count)$", "", match[1])
        assert match[1] in BY_NAME or BY_NAME[name].kind == "histogram", line
        assert line not in values
        values[line.rpartition(" ")[0]] = float(match[3])
    return values


def test_a_request_is_counted_once_everywhere():
    metrics = RequestMetrics()
    metrics.observe(make_exchange(took_s=0.1, bytes_in=10, bytes_out=20), 200)
    values = scrape(metrics)
    wine = '{model="wine",version="1"}'
    assert values['chips_requests_total{model="wine",version="1",status="200"}'] == 1
    assert values[f"chips_request_seconds_count{wine}"] == 1
    assert values[f"chips_request_seconds_sum{wine}"] == pytest.approx(0.1)
    assert values[f"chips_backend_seconds_sum{wine}"] == pytest.approx(0.098)
    assert values["chips_overhead_seconds_sum"] == pytest.approx(0.002)
    assert values[f"chips_request_bytes_total{wine}"] == 10
    assert values[f"chips_response_bytes_total{wine}"] == 20
    assert values['chips_caller_requests_total{caller="key-1",model="wine"}'] == 1
    assert values['chips_caller_backend_seconds_total{caller="key-1",model="wine"}'] == pytest.approx(0.098)
    assert values["chips_process_cpu_seconds_total"] > 0
    assert values["chips_process_memory_bytes"] > 1_000_000


@pytest.mark.parametrize(
    ("error", "status", "left", "side", "code"),
    [
        (BadRequest("x"), 400, False, "caller", "bad-request"),
        (BrokenUpstreamResponse("x"), 502, False, "backend", "upstream-broken"),
        (Overloaded("x"), 503, False, "gateway", "overloaded"),
        (None, 500, False, "backend", "answered-5xx"),
        (None, 422, False, "caller", "answered-4xx"),
        (None, 499, True, "caller", "left"),
    ],
)
def test_an_error_names_who_can_mend_it(error, status, left, side, code):
    metrics = RequestMetrics()
    metrics.observe(make_exchange(error=error, caller_disconnected=left), status)
    values = scrape(metrics)
    assert values[f'chips_errors_total{{model="wine",version="1",side="{side}",code="{code}"}}'] == 1
    missed = values['chips_objective_misses_total{model="wine",objective="availability"}']
    assert missed == (side != "caller")


def test_what_reached_no_model_has_no_label_of_the_callers_making():
    metrics = RequestMetrics()
    metrics.observe(make_exchange(model=None, target='/"evil"', error=BadRequest("x")), 400)
    assert scrape(metrics)['chips_requests_total{model="",version="",status="400"}'] == 1


def test_an_objective_is_missed_by_what_is_late():
    metrics = RequestMetrics()
    policy = Policy(latency_s=0.05)
    for took_s in (0.01, 0.06, 0.07):
        metrics.observe(make_exchange(took_s=took_s, policy=policy), 200)
    values = scrape(metrics)
    assert values['chips_objective_misses_total{model="wine",objective="latency"}'] == 2


def test_labels_are_bounded():
    metrics = RequestMetrics(limit=10)
    for number in range(50):
        metrics.observe(make_exchange(model=f"m{number}", caller=f"c{number}"), 200)
    state = metrics.live_state()
    assert sum(len(versions) for versions in state.series.values()) <= 11
    assert state.series[OTHER][OTHER].statuses == {200: 40}
    assert (
        sum(usage.requests for models in usage_by_caller(state).values() for usage in models.values()) == 50
    )


def test_versions_beyond_the_bound_still_count_for_their_model():
    metrics = RequestMetrics(limit=10)
    for number in range(50):
        metrics.observe(make_exchange(version=str(number)), 200)
        metrics.observe(make_exchange(model=f"m{number}"), 200)
    series = metrics.live_state().series
    assert sum(sum(one.statuses.values()) for one in series["wine"].values()) == 50
    assert sum(len(versions) for versions in series.values()) <= 2 * 10


def test_retries_cold_starts_and_waits():
    metrics = RequestMetrics()
    metrics.observe(make_exchange(attempts=3, queued_s=0.01), 200)
    metrics.observe(make_exchange(took_s=5, server_timing=b"predict;dur=100"), 200)
    metrics.observe(make_exchange(took_s=5, server_timing=b"predict;dur=3900"), 200)  # slow, not cold
    metrics.observe(make_exchange(took_s=5), 200)  # the backend says nothing: nobody can know
    values = scrape(metrics)
    wine = '{model="wine",version="1"}'
    assert values[f"chips_retries_total{wine}"] == 2
    assert values[f"chips_queue_total{wine}"] == 1
    assert values[f"chips_queue_seconds_total{wine}"] == pytest.approx(0.01)
    assert values[f"chips_cold_starts_total{wine}"] == 1


def test_states_of_workers_add_up():
    first, second = RequestMetrics(), RequestMetrics()
    for metrics, model in ((first, "wine"), (second, "wine"), (second, "fraud")):
        metrics.observe(make_exchange(model=model), 200)
        metrics.add_readers(
            gauges=lambda: {"chips_registry_generation": {"": 7.0}, "chips_in_flight_requests": {"": 2.0}}
        )
    total = merge_states([first.live_state(), second.live_state()])
    assert total.series["wine"]["1"].statuses == {200: 2}
    assert total.series["fraud"]["1"].statuses == {200: 1}
    assert total.gauges["chips_registry_generation"] == {"": 7.0}
    assert total.gauges["chips_in_flight_requests"] == {"": 4.0}
    assert total.gauges["chips_workers"] == {"": 2.0}


@given(st.lists(st.floats(0, 299), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_where_it_is(values, share):
    from bisect import bisect_left

    buckets = [0] * (len(LATENCY_BOUNDS) + 1)
    for value in values:
        buckets[bisect_left(LATENCY_BOUNDS, value)] += 1
    read = quantile(share, buckets, LATENCY_BOUNDS)
    assert read is not None
    import math

    true = sorted(values)[max(math.ceil(share * len(values) - 1e-9) - 1, 0)]
    index = bisect_left(LATENCY_BOUNDS, true)
    assert (LATENCY_BOUNDS[index - 1] if index else 0) <= read + 1e-9
    assert read <= LATENCY_BOUNDS[index] + 1e-9


@given(st.binary(max_size=300))
def test_a_server_timing_of_any_bytes_is_no_danger(value):
    phases = parse_server_timing(value)
    assert all(0 <= phase.duration_s < 86_400 for phase in phases)


def test_the_phases_of_the_contract():
    phases = parse_server_timing(
        b'queue;dur=0.2, parse;dur=0.1, predict;desc="a";dur=12.3, render, bad;dur=x, neg;dur=-1'
    )
    assert [(p.name, round(p.duration_s * 1000, 3)) for p in phases] == [
        ("queue", 0.2),
        ("parse", 0.1),
        ("predict", 12.3),
    ]


def test_names_follow_the_house():
    for metric in METRICS:
        assert metric.name.startswith("chips_")
        assert metric.text.endswith(".")
        if metric.kind == "counter":
            assert metric.name.endswith("_total")


def test_waiting_for_redis_is_not_the_gateways_own_time():
    metrics = RequestMetrics()
    metrics.observe(make_exchange(took_s=0.102, rate_limit_s=0.05), 200)
    plain = RequestMetrics()
    plain.observe(make_exchange(took_s=0.102), 200)
    assert plain.live_state().overhead_s - metrics.live_state().overhead_s == pytest.approx(0.05)

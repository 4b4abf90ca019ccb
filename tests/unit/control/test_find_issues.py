"""What counts as wrong, whose it is, which is worse, and when it began."""

import pytest

from gateway.control.find_issues import find_issues, set_issue_start
from gateway.control.model_page_data import history_points
from gateway.control.window_totals import RequestTotals, WindowTotals, WindowTotalsReader
from gateway.core.model import Backend, Model, Policy
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS
from gateway.telemetry.recorded_request_store import (
    COARSE_S,
    FINE_S,
    RequestAndTickReader,
    RequestAndTickWriter,
    Tick,
)

NOTHING = [0] * (len(LATENCY_BOUNDS) + 1)


def buckets(requests, ms):
    counts = list(NOTHING)
    counts[next(i for i, bound in enumerate(LATENCY_BOUNDS) if ms / 1000 <= bound)] = requests
    return counts


def tick(
    at=0, *, requests=100, ms=9, late=0, seconds=FINE_S, model="wine", version="1", backend_ms=None, **errors
):
    labels = {label.replace("_", " ", 1).replace("_", "-"): count for label, count in errors.items()}
    failed = sum(count for label, count in labels.items() if not label.startswith("caller"))
    backend = buckets(requests, ms if backend_ms is None else backend_ms)
    return Tick(seconds, at, model, version, requests, failed, late, buckets(requests, ms), backend, labels)


def window(*ticks):
    models: dict[str, dict[str, RequestTotals]] = {}
    for one in ticks:
        models.setdefault(one.model, {}).setdefault(one.version, RequestTotals()).add(one)
    return WindowTotals("1m", 60, 1000, models)


def model(*versions, name="wine", traffic=None, **policy):
    backends = tuple(Backend(version=v, url=f"http://{v}") for v in versions or ("1",))
    return {name: Model(name=name, backends=backends, traffic=traffic or {"1": 100}, policy=Policy(**policy))}


def issues(models, *ticks, now=()):
    return find_issues(models, window(*ticks), window(*now))


def test_all_is_well():
    assert issues(model(latency_s=0.05, availability=0.99), tick()) == []
    assert issues(model(), tick(requests=3, ms=9000)) == []


@pytest.mark.parametrize(
    ("errors", "kind", "side"),
    [
        ({"backend_upstream_unreachable": 5}, "unreachable", "backend"),
        ({"backend_upstream_unreachable": 5, "backend_answered_5xx": 1}, "failing", "backend"),
        ({"backend_upstream_timeout": 5}, "failing", "backend"),
        ({"gateway_overloaded": 5}, "failing", "gateway"),
        ({"caller_answered_4xx": 50}, "refused", "caller"),
    ],
)
def test_each_failure_has_a_side(errors, kind, side):
    (issue,) = issues(model(), tick(**errors))
    assert (issue.kind, issue.side, issue.bad) == (kind, side, sum(errors.values()))
    assert sum(issue.codes.values()) == issue.bad


def test_an_objective_says_how_much_may_fail():
    errors = {"backend_answered_5xx": 3}
    assert issues(model(availability=0.95), tick(**errors)) == []
    assert len(issues(model(availability=0.999), tick(requests=1000, **errors))) == 1
    assert issues(model(), tick(requests=1000, **errors)) == []


def test_a_few_mistakes_of_callers_are_no_issue():
    assert issues(model(), tick(caller_answered_4xx=10)) == []
    assert issues(model(), tick(requests=5, caller_answered_4xx=5)) == []
    strangers = tick(model="", version="", caller_model_not_found=100)
    assert issues(model(), strangers) == []


def test_late_is_later_than_the_objective():
    (issue,) = issues(model(latency_s=0.05), tick(ms=90, late=100))
    assert (issue.kind, issue.side, issue.limit_ms, issue.bad) == ("late", "backend", 50, 100)
    assert issues(model(latency_s=0.05), tick(late=4)) == [], "by chance"
    assert len(issues(model(latency_s=0.05), tick(late=5))) == 1
    assert len(issues(model(latency_s=0.05), tick(requests=3, ms=90, late=3))) == 1
    (issue,) = issues(model(latency_s=0.05), tick(ms=90, late=100, backend_ms=9))
    assert issue.side == "gateway"


def test_a_version_that_is_slower_than_the_others_stands_out():
    models = model("1", "2", "3", traffic={"1": 60, "2": 30, "3": 10})
    ticks = [tick(), tick(version="2", ms=14), tick(version="3", ms=90)]
    (issue,) = issues(models, *ticks)
    assert (issue.kind, issue.version, issue.traffic, issue.shift) == ("slower", "3", 10, {"1": 67, "2": 33})
    sometimes_late = tick(version="2", late=10)
    found = issues(
        model("1", "2", "3", traffic={"1": 60, "2": 30, "3": 10}, latency_s=0.05),
        tick(late=10),
        sometimes_late,
        tick(version="3", ms=90, late=100),
    )
    assert [(i.version, i.kind, i.shift) for i in found] == [
        ("3", "late", {"1": 67, "2": 33}),
        ("1", "late", None),
        ("2", "late", None),
    ], "no traffic goes to a version that does worse"
    quick_because_broken = tick(version="2", ms=0.9, backend_answered_5xx=100)
    (issue,) = issues(model("1", "2"), tick(), quick_because_broken)
    assert (issue.kind, issue.version) == ("failing", "2")


def test_the_worst_is_first():
    models = {**model("1", "2", name="wine", latency_s=0.05), **model(name="fraud")}
    found = issues(
        models,
        tick(model="fraud", caller_answered_4xx=90),
        tick(ms=90, late=50),
        tick(version="2", backend_answered_5xx=50),
        tick(model="fraud", version="2", backend_answered_5xx=90),
    )
    assert [(i.model, i.version, i.kind) for i in found] == [
        ("fraud", "2", "failing"),
        ("wine", "2", "failing"),
        ("wine", "1", "late"),
        ("fraud", "1", "refused"),
    ]


def test_what_is_over_is_said():
    bad = tick(backend_answered_5xx=50)
    (issue,) = issues(model(), bad, now=[tick()])
    assert issue.share_now == 0
    (issue,) = issues(model(), bad, now=[tick(backend_answered_5xx=100)])
    assert issue.share_now == 1
    (issue,) = issues(model(), bad)
    assert issue.share_now is None


def began(*ticks, coarse=(), oldest=None):
    (issue,) = issues(model(), tick(backend_answered_5xx=50))
    set_issue_start(issue, coarse, ticks, oldest)
    return issue.since, issue.since_at_least


def test_it_began_with_the_first_bad_tick():
    ticks = [tick(at, backend_answered_5xx=50 if at > 50 else 0) for at in range(5, 105, 5)]
    assert began(*ticks) == (50, False)


def test_a_long_calm_divides_two_failures():
    bad = {"backend_answered_5xx": 50}
    assert began(tick(100, **bad), tick(300, **bad), tick(340, **bad)) == (295, False)
    assert began(tick(280, **bad), tick(300, **bad), tick(340, **bad)) == (275, False)


def test_minutes_say_what_was_before_the_fine_ticks():
    bad = {"backend_answered_5xx": 50}
    minutes = [tick(at, seconds=COARSE_S, **bad) for at in (120, 180, 240)]
    assert began(tick(245, **bad), coarse=minutes) == (60, False)
    assert began(tick(245, **bad), coarse=minutes, oldest=120) == (60, True)


def test_one_worker_that_fails_is_seen_in_the_sum():
    """Ticks of two workers at one time count as one."""
    bad = tick(100, requests=100, backend_answered_5xx=100)
    assert began(bad, tick(100, requests=100), tick(105, requests=10)) == (95, False)


def test_the_ticks_of_workers_become_one_point():
    points = history_points([tick(60, ms=9), tick(60, ms=90), tick(60, version="2"), tick(120)])
    assert [(p["at"], p["version"], p["requests"]) for p in points] == [
        (60, "1", 200),
        (60, "2", 100),
        (120, "1", 100),
    ]
    assert points[0]["p99_ms"] > 75


@pytest.fixture
def written(tmp_path):
    store = RequestAndTickWriter(tmp_path / "figures.db", limit=100)
    yield store.write_ticks, RequestAndTickReader(tmp_path / "figures.db")
    store.close()


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""

    def set_clock(now):
        monkeypatch.setattr("time.time", lambda: float(now))

    return set_clock


def test_a_window_ends_by_the_clock_whenever_somebody_looks(written, at):
    write, reader = written
    at(3608)
    write([tick(end) for end in range(3000, 3610, FINE_S)])
    ten, minute = (WindowTotalsReader(reader).read(name) for name in ("10s", "1m"))
    assert (ten.ends, ten.seconds, ten.for_version("wine", "1").requests) == (3605, 10, 200)
    assert (minute.ends, minute.seconds, minute.for_model("wine").requests) == (3605, 60, 1200)
    at(3606.4)  # the tick that ended at 3605 may not have been written by all workers
    assert WindowTotalsReader(reader).read("10s").ends == 3600


def test_an_hour_is_its_minutes_and_what_has_no_whole_minute_yet(written, at):
    """The tick of the last whole minute is late, and nothing is missing for that."""
    write, reader = written
    at(7225)
    write([tick(end, seconds=COARSE_S, requests=12) for end in range(60, 7145, COARSE_S)])
    write([tick(end, requests=1) for end in range(7000, 7230, FINE_S)])
    hour = WindowTotalsReader(reader).read("1h")
    assert hour.for_model("wine").requests == 60 * 12 + 4
    assert hour.seconds == 3600 + 20


def test_a_window_is_no_longer_than_there_are_figures(written, at):
    write, reader = written
    at(3608)
    write([tick(3600), tick(3605)])
    assert WindowTotalsReader(reader).read("1h").seconds == 10
    assert WindowTotalsReader(RequestAndTickReader(None)).read("1m").models == {}


def test_a_window_is_read_once_for_each_tick(written, at):
    write, reader = written
    at(3608)
    write([tick(3605)])
    windows = WindowTotalsReader(reader)
    first = windows.read("10s")
    at(3609)
    assert windows.read("10s") is first
    at(3613)
    assert windows.read("10s") is not first

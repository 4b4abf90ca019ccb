import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BrokenUpstreamResponse
from gateway.telemetry.recorded_request import recorded_request_of
from gateway.telemetry.spans_of_request import spans_of
from tests.unit.telemetry.exchanges import ARRIVED, make_exchange
from tests.unit.telemetry.test_recorded_request_store import recorded


def tree(summary_):
    spans = spans_of(summary_)
    names = {span.span_id: span.name for span in spans}
    assert len(names) == len(spans)
    return [(names.get(span.parent_id or "", "caller"), span.name) for span in spans]


def test_a_good_request_with_a_backend_that_tells_its_phases():
    assert tree(recorded(server_timing=b"queue;dur=1, predict;dur=50")) == [
        ("caller", "POST /wine"),
        ("POST /wine", "attempt 1"),
        ("attempt 1", "connect"),
        ("attempt 1", "send"),
        ("attempt 1", "wait"),
        ("wait", "backend queue"),
        ("wait", "backend predict"),
        ("attempt 1", "receive"),
    ]


def test_retries_are_siblings_and_the_first_failed():
    spans = spans_of(recorded(attempts=2))
    attempts = [span for span in spans if span.kind == "client"]
    assert [span.parent_id for span in attempts] == [spans[0].span_id] * 2
    assert [span.error for span in attempts] == ["upstream-broken", ""]
    assert attempts[0].span_id != attempts[1].span_id


def test_a_cold_start_stands_before_what_the_backend_accounts_for():
    spans = spans_of(recorded(took_s=10, server_timing=b"predict;dur=100"))
    cold, predict = (next(s for s in spans if s.name == name) for name in ("cold start", "backend predict"))
    assert cold.end_s == predict.start_s
    assert predict.end_s - predict.start_s == pytest.approx(0.1)
    assert cold.end_s - cold.start_s > 5


def test_no_two_spans_have_one_id():
    """Each that there can be: a cold start, sixteen phases, TLS, a retry, and all that a request can wait for."""
    timing = ", ".join(f"p{number};dur=1" for number in range(16)).encode()
    exchange = make_exchange(
        took_s=10,
        attempts=2,
        server_timing=timing,
        routed=ARRIVED + 0.1,
        authenticated=ARRIVED + 0.2,
        rate_limit_s=0.1,
        buffering_s=0.1,
        queued_s=0.1,
        permitted=ARRIVED + 0.5,
    )
    for attempt in exchange.attempts:
        attempt.dialed = attempt.began + 0.01
    kept = recorded_request_of(exchange, status=200, kept="slow", side="", code="", gateway="test")
    spans = spans_of(kept)
    assert [span.name for span in spans][1:6] == ["route", "authenticate", "limits", "body", "queue"]
    assert {"cold start", "TLS", "backend p15", "receive", "attempt 2"} <= {span.name for span in spans}
    assert len({span.span_id for span in spans}) == len(spans)


def test_a_wait_in_the_queue():
    spans = spans_of(recorded(took_s=1, permitted=ARRIVED + 0.5, queued_s=0.5))
    assert [span.name for span in spans][1] == "queue"


def test_a_caller_who_sent_the_body_slowly_before_a_wait_in_the_queue():
    body, queue = spans_of(recorded(took_s=2, permitted=ARRIVED + 1.5, queued_s=0.5, buffering_s=0.9))[1:3]
    assert (body.name, queue.name) == ("body", "queue")
    assert (body.end_s, queue.end_s) == pytest.approx((1.0, 1.5))


def test_a_body_that_never_came():
    names = [s.name for s in spans_of(recorded(attempts=0, permitted=0.0, buffering_s=0.09, status=408))]
    assert names == ["POST /wine", "body"]


def test_a_wait_in_the_queue_that_was_in_vain():
    names = [s.name for s in spans_of(recorded(attempts=0, permitted=0.0, queued_s=0.05, status=503))]
    assert names == ["POST /wine", "queue"]


def test_a_refusal_is_one_span():
    error = BrokenUpstreamResponse("nobody home")
    (span,) = spans_of(recorded(model=None, status=502, error=error))
    assert span.error == "nobody home"
    assert span.attributes["error.type"] == "answered-5xx"


@given(
    attempts=st.integers(0, 4),
    took_s=st.floats(0.003, 100),
    timing=st.binary(max_size=60) | st.sampled_from([b"a;dur=1e9", b"a;dur=50000, b;dur=70000"]),
)
def test_children_lie_within_their_parents(attempts, took_s, timing):
    spans = spans_of(recorded(attempts=attempts, took_s=took_s, server_timing=timing))
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans[1:]:
        assert span.parent_id is not None
        parent = by_id[span.parent_id]
        assert span.start_s >= parent.start_s - 1e-9
        assert span.end_s <= parent.end_s + 1e-9
        assert span.start_s <= span.end_s + 1e-9

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BrokenUpstreamResponse
from gateway.core.escape_unprintable import printable_own_lines
from gateway.core.ip_network_set import parse_address
from gateway.telemetry.access_log import JsonAccessLogFormatter, TextAccessLogFormatter
from gateway.telemetry.logs import JsonFormatter, LogWriter, TextFormatter
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue
from gateway.telemetry.request_recorder import RequestRecorder
from tests.unit.telemetry.exchanges import make_exchange

TEXT = st.text(max_size=80)


def test_a_good_request():
    line = json.loads(JsonAccessLogFormatter("my-project")(make_exchange(bytes_in=3, bytes_out=4), 200, True))
    assert line["severity"] == "INFO"
    assert line["message"] == "POST /wine 200"
    assert line["logging.googleapis.com/trace"].startswith("projects/my-project/traces/")
    assert line["logging.googleapis.com/trace_sampled"] is True
    assert line["httpRequest"] == {
        "requestMethod": "POST",
        "requestUrl": "/wine",
        "status": 200,
        "requestSize": "3",
        "responseSize": "4",
        "latency": "0.100000s",
        "remoteIp": "192.0.2.1",
    }
    assert (line["model"], line["version"], line["caller"]) == ("wine", "1", "key-1")
    assert set(line["timing_us"]) == {"queue", "backend", "receive"}


@given(
    target=TEXT, model=st.text(min_size=1, max_size=80), version=TEXT, caller=TEXT, detail=TEXT, cause=TEXT
)
def test_nothing_that_anybody_writes_can_break_the_line(target, model, version, caller, detail, cause):
    error = BrokenUpstreamResponse(detail)
    exchange = make_exchange(
        target="/" + target, model=model, version=version, caller=caller, error=error, cause=ValueError(cause)
    )
    to_json = JsonAccessLogFormatter("")
    for _ in range(2):  # learned and remembered
        raw = to_json(exchange, 502)
        assert b"\n" not in raw
        line = json.loads(raw)
        assert line["httpRequest"]["requestUrl"] == ("/" + target).partition("?")[0]
        assert (line["model"], line["version"], line.get("caller", "")) == (model, version, caller)
        assert line["detail"] == detail
        assert line["cause"] == f"ValueError: {cause}"


def test_what_is_remembered_of_one_request_is_not_told_of_another():
    """The same target, other people, another generation; then more of each than is remembered."""
    to_json = JsonAccessLogFormatter("")
    for number in [*range(5000), *range(3)]:
        exchange = make_exchange(
            target="/wine" if number % 2 else f"/wine/{number}",
            version=str(number % 3),
            caller=f"key-{number}",
            generation=number // 2,
            address=parse_address(f"192.0.{number // 250}.{number % 250}"),
            took_s=0.002 + number / 1000,
        )
        status = 200 + number % 400
        line = json.loads(to_json(exchange, status))
        assert line["httpRequest"]["requestUrl"] == exchange.raw_target
        assert line["httpRequest"]["status"] == status
        assert line["severity"] == ("ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO")
        assert (line["version"], line["caller"]) == (str(number % 3), f"key-{number}")
        assert (line["generation"], line["httpRequest"]["remoteIp"]) == (number // 2, str(exchange.address))
        took_s = float(line["httpRequest"]["latency"].removesuffix("s"))
        assert took_s == pytest.approx(0.002 + number / 1000, abs=2e-6)


def test_the_second_is_the_clocks_own(monkeypatch):
    """Also when the clock is set back."""
    to_json = JsonAccessLogFormatter("")
    for now, told in (
        (1_796_731_200.25, "2026-12-08T12:00:00.250Z"),
        (1_796_731_200.75, "2026-12-08T12:00:00.750Z"),
        (1_796_731_201.0, "2026-12-08T12:00:01.000Z"),
        (1_796_731_100.5, "2026-12-08T11:58:20.500Z"),
    ):
        monkeypatch.setattr("gateway.telemetry.access_log._clock", lambda now=now: now)
        assert json.loads(to_json(make_exchange(), 200))["time"] == told


@pytest.mark.parametrize(
    ("fields", "timing"),
    [
        ({}, {"queue": 0, "backend": 88200, "receive": 9800}),
        ({"queued_s": 0.5, "rate_limit_s": 0.25}, {"queue": 500_000, "limits": 250_000}),
        ({"attempts": 2}, {"queue": 0, "backend": 44100, "receive": 4900, "attempts": 2}),
        ({"attempts": 0}, None),
    ],
)
def test_where_the_time_went(fields, timing):
    told = json.loads(JsonAccessLogFormatter("")(make_exchange(**fields), 200)).get("timing_us")
    if timing is None:
        assert told is None
    else:
        assert {name: pytest.approx(told[name], abs=1) for name in timing} == timing


def test_bytes_that_are_no_text():
    line = json.loads(JsonAccessLogFormatter("")(make_exchange(target="/\udcff\ud800"), 400))
    assert line["httpRequest"]["requestUrl"] == "/??"


def test_no_query_is_logged():
    for line in (JsonAccessLogFormatter(""), TextAccessLogFormatter()):
        assert b"secret" not in line(make_exchange(target="/wine?token=secret"), 200)


def test_a_terminal_gets_no_orders_from_a_caller():
    line = TextAccessLogFormatter()(make_exchange(target="/\x1b[2J\x07\nfake"), 400)
    assert b"\x1b[2J" not in line
    assert b"\n" not in line


def test_colours_are_for_terminals_alone():
    assert b"\x1b[" not in TextAccessLogFormatter()(make_exchange(), 500)
    assert b"\x1b[31m500\x1b[0m" in TextAccessLogFormatter(colored=True)(make_exchange(), 500)
    assert not LogWriter(io.StringIO()).colored
    assert "\x1b[" not in TextFormatter(colored=False).format(logging.makeLogRecord({"levelno": 40}))
    assert "\x1b[" in TextFormatter(colored=True).format(logging.makeLogRecord({"levelno": 40}))


@pytest.mark.parametrize(
    ("exchange", "status", "sampled"),
    [
        (make_exchange(), 200, False),  # kept for the store at most, which is no trace elsewhere
        (make_exchange(keep_trace_because="sampled"), 200, True),
        (make_exchange(keep_trace_because="asked"), 200, True),
        (make_exchange(status=502), 502, True),
        (make_exchange(caller_disconnected=True), 499, True),
    ],
)
def test_a_line_says_whether_its_trace_is_kept_also_where_that_is_known_last(exchange, status, sampled):
    stream = io.TextIOWrapper(io.BytesIO())
    writer = LogWriter(stream, interval_s=0)
    record = RequestRecorder(
        writer, RequestMetrics(), json=True, store=RecordedRequestQueue("store", NoSink), exporters=[]
    )
    record(exchange)
    writer.start()
    writer.stop(20)
    line = json.loads(stream.buffer.getvalue())
    assert line["httpRequest"]["status"] == status
    assert line["logging.googleapis.com/trace_sampled"] is sampled


class NoSink:
    def write(self, batch: object, timeout_s: float) -> None: ...

    def close(self) -> None: ...


EVIL = "x\nFORGED\r\x1b[2J\x85\x9b\u202e\u2028\u200b\x7f"


def test_nobody_forges_a_line_of_the_log():
    exchange = make_exchange(
        target="/" + EVIL, model=EVIL, version=EVIL, caller=EVIL, error=BrokenUpstreamResponse(EVIL)
    )
    exchange.cause = ValueError(EVIL)
    record = logging.makeLogRecord({"levelno": 40, "msg": "%s", "args": (EVIL,)})
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    for text in (
        JsonAccessLogFormatter("p")(exchange, 502).decode(),
        TextAccessLogFormatter()(exchange, 502).decode(),
        JsonFormatter().format(record),
        TextFormatter(colored=False).format(record),
    ):
        assert printable_own_lines(text) == text
        assert not any(line.startswith("FORGED") for line in text.splitlines())

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamBroken
from gateway.telemetry.line import JsonLine, text_line
from tests.unit.telemetry.exchanges import make_exchange

TEXT = st.text(max_size=80)


def test_a_good_request():
    line = json.loads(JsonLine("my-project")(make_exchange(kept="sampled", bytes_in=3, bytes_out=4), 200))
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


@given(target=TEXT, model=TEXT, version=TEXT, caller=TEXT, detail=TEXT, cause=TEXT)
def test_nothing_that_anybody_writes_can_break_the_line(target, model, version, caller, detail, cause):
    error = UpstreamBroken(detail)
    exchange = make_exchange(
        target="/" + target, model=model, version=version, caller=caller, error=error, cause=ValueError(cause)
    )
    to_json = JsonLine("")
    for _ in range(2):  # learned and remembered
        raw = to_json(exchange, 502)
        assert b"\n" not in raw
        line = json.loads(raw)
        assert line["httpRequest"]["requestUrl"] == ("/" + target).partition("?")[0]
        assert (line["model"], line["version"], line.get("caller", "")) == (model, version, caller)
        assert line["detail"] == detail
        assert line["cause"] == f"ValueError: {cause}"


def test_bytes_that_are_no_text():
    line = json.loads(JsonLine("")(make_exchange(target="/\udcff\ud800"), 400))
    assert line["httpRequest"]["requestUrl"] == "/??"


def test_no_query_is_logged():
    for line in (JsonLine(""), text_line):
        assert b"secret" not in line(make_exchange(target="/wine?token=secret"), 200)


def test_a_terminal_gets_no_orders_from_a_caller():
    line = text_line(make_exchange(target="/\x1b[2J\x07\nfake"), 400)
    assert b"\x1b[2J" not in line
    assert b"\n" not in line

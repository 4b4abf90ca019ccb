"""Log lines: whole, in order, and those of requests written together."""

import asyncio
import io
import json
import re
from datetime import UTC, datetime
from typing import Any

from chips_backend.logs import AnsweredLine, HttpRequest, Log, Timing
from chips_backend.trace_context import Trace


class Stream(io.StringIO):
    """Counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


async def test_lines_of_requests_are_written_together_at_the_end_of_the_turn():
    stream = Stream()
    log = Log(stream, facts={"model": "m"})
    for number in range(5):
        log.request("INFO", "GET / 200", None, {"number": number})
    assert stream.writes == []
    await asyncio.sleep(0)
    assert len(stream.writes) == 1
    lines = [json.loads(line) for line in stream.writes[0].splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3, 4]
    assert {line["model"] for line in lines} == {"m"}
    log.request("INFO", "GET / 200", None, {"number": 5})
    log.flush()
    assert json.loads(stream.writes[1])["number"] == 5


async def test_a_stream_that_is_gone_does_not_pile_up_lines():
    stream = Stream()
    log = Log(stream)
    log.request("INFO", "GET / 200", None, {})
    stream.close()
    loop = asyncio.get_running_loop()
    said = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    await asyncio.sleep(0)
    assert log._waiting == []
    assert len(said) == 1


def test_the_time_is_now_with_microseconds():
    stream = Stream()
    log = Log(stream)
    for _ in range(3):
        before = datetime.now(UTC)
        log.info("x")
        said = json.loads(stream.writes[-1])["time"]
        assert said.endswith("Z")
        assert len(said) == len("2026-01-01T00:00:00.000000Z")
        assert before <= datetime.fromisoformat(said) <= datetime.now(UTC)


def answered(**more: Any) -> AnsweredLine:
    request = HttpRequest("POST", '/a"b', 200, "12", "34", "0.000123s")
    return AnsweredLine(
        "INFO", "POST 200", "2026-11-30T10:00:00.000000Z", request, "id", Timing(0.1, 0.2, 0.3, 0.4), **more
    )


async def test_the_line_of_a_request_says_what_there_is_to_say():
    stream = Stream()
    log = Log(stream, project="p", facts={"model": "m"})
    log.answered(answered(), None)
    log.answered(answered(caller="ana", code="overloaded"), Trace("a" * 32, "b" * 16, sampled=False))
    log.flush()
    first, second = map(json.loads, stream.writes[0].splitlines())
    always = {
        "severity": "INFO",
        "message": "POST 200",
        "time": "2026-11-30T10:00:00.000000Z",
        "httpRequest": {
            "requestMethod": "POST",
            "requestUrl": '/a"b',
            "status": 200,
            "requestSize": "12",
            "responseSize": "34",
            "latency": "0.000123s",
        },
        "request_id": "id",
        "timing": {"queue": 0.1, "parse": 0.2, "predict": 0.3, "render": 0.4},
        "model": "m",
    }
    assert first == always
    assert second == {
        **always,
        "caller": "ana",
        "code": "overloaded",
        "logging.googleapis.com/trace": "projects/p/traces/" + "a" * 32,
        "logging.googleapis.com/spanId": "b" * 16,
        "logging.googleapis.com/trace_sampled": False,
    }


async def test_a_terminal_gets_readable_lines():
    class Terminal(Stream):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    log = Log(stream)
    log.answered(answered(), None)
    log.request("ERROR", "request id failed", None, {"stack": "Traceback: …\n"})
    log.flush()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info POST 200\n\d\d:\d\d:\d\d error request id failed\nTraceback: …\n",
        stream.getvalue(),
    )

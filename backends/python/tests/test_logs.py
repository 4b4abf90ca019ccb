"""Log lines: whole, in order, and those of requests written together."""

import asyncio
import io
import json
from datetime import UTC, datetime

from chips_backend.logs import Log


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

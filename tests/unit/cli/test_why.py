"""`chips why` and `chips tail` on the store of this machine."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.errors import BrokenUpstreamResponse
from gateway.telemetry.recorded_request_store import RequestAndTickWriter
from tests.unit.cli.shell import Shell
from tests.unit.telemetry.test_recorded_request_store import recorded


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RequestAndTickWriter]:
    path = tmp_path / "requests.db"
    monkeypatch.setenv("CHIPS_TRACE__STORE", str(path))
    with closing(RequestAndTickWriter(path, limit=100)) as store:
        yield store


def test_one_screen_tells_it_all(shell: Shell, store: RequestAndTickWriter):
    error = BrokenUpstreamResponse("The backend closed the connection before it answered.")
    kept = recorded(status=502, kept="failed", attempts=2, error=error, cause=ConnectionResetError("peer"))
    store.write([kept], 1)
    for given in (kept.request_id, kept.trace_id):
        out = shell.ok("why", given).out
        for expected in (
            "POST /wine",
            "502",
            "The backend closed the connection",
            "ConnectionResetError: peer",
            "key-1",
            "wine@1 at http://backend.test",
            "generation 0",
            "2: upstream-broken; status 502",
            "Cloud Run",
            kept.trace_id,
            "attempt 1",
            "attempt 2",
            "█",
        ):
            assert expected in out, expected


def test_for_machines(shell: Shell, store: RequestAndTickWriter):
    kept = recorded(server_timing=b"predict;dur=20")
    store.write([kept], 1)
    ((one),) = shell.ok("why", kept.request_id, "--json").json()
    assert one["request"]["trace_id"] == kept.trace_id
    assert "backend predict" in [span["name"] for span in one["spans"]]


def test_a_request_that_nobody_kept(shell: Shell, store: RequestAndTickWriter):
    ended = shell("why", "nothing")
    assert ended.code == 65
    assert "requests.db" in ended.err


def test_no_gateway_there(shell: Shell):
    ended = shell("why", "some-id", "--gateway", "http://127.0.0.1:9")
    assert ended.code == 69
    assert "no gateway answers at http://127.0.0.1:9" in ended.err
    for address in ("nonsense", "http://"):
        assert shell("top", "--once", "--gateway", address).code in {65, 69}


def test_names_of_strangers_give_the_terminal_no_orders(shell: Shell, store: RequestAndTickWriter):
    kept = recorded(target="/[red]x[/]\x1b[2J", model="wine")
    store.write([kept], 1)
    out = shell.ok("why", kept.request_id).out
    assert "[red]x[/]" in out
    assert "\x1b[2J" not in out
    assert "\x1b[2J" not in shell.ok("tail", "--no-follow").out


def test_tail_shows_what_was_and_filters(shell: Shell, store: RequestAndTickWriter):
    good, bad, other = recorded(), recorded(status=502, kept="failed"), recorded(model="fraud", status=500)
    store.write([good, bad, other], 1)

    def ids(*options: str) -> list[str]:
        lines = shell.ok("tail", "--no-follow", "--json", *options).out.splitlines()
        return [json.loads(line)["request_id"] for line in lines]

    assert ids() == [good.request_id, bad.request_id, other.request_id]
    assert ids("--errors") == [bad.request_id, other.request_id]
    assert ids("--model", "wine", "--errors") == [bad.request_id]
    assert ids("--last", "1") == [other.request_id]
    assert other.request_id in shell.ok("tail", "--no-follow").out


def test_tail_without_a_store(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHIPS_TRACE__STORE", "off")
    assert shell("tail").code == 65


def test_top_knows_its_orders(shell: Shell):
    assert shell("top", "--sort", "luck").code == 64


def test_the_last_one_and_the_slowest_one(shell: Shell, store: RequestAndTickWriter):
    slow, quick = recorded(took_s=3), recorded(took_s=0.1)
    store.write([slow], 1)
    store.write([quick], 1)
    assert quick.request_id in shell.ok("why", "--last", "--json").out
    assert slow.request_id in shell.ok("why", "--slowest", "wine", "--json").out
    assert shell("why", "--slowest", "nothing").code == 65


def test_the_slowest_one_of_a_version(shell: Shell, store: RequestAndTickWriter):
    slow, quick = recorded(took_s=3, version="1"), recorded(took_s=0.1, version="2")
    store.write([slow, quick], 1)
    assert quick.request_id in shell.ok("why", "--slowest", "wine@2", "--json").out
    assert shell("why", "--slowest", "wine@3").code == 65


def test_the_last_one_that_failed(shell: Shell, store: RequestAndTickWriter):
    assert "no request that failed" in shell("why", "--errors").err
    failed, good = recorded(status=422), recorded()
    store.write([failed], 1)
    store.write([good], 1)
    assert failed.request_id in shell.ok("why", "--errors", "--json").out
    assert failed.request_id in shell.ok("why", "--last", "--errors", "--json").out


def test_a_backends_error_is_named_by_its_code(shell: Shell, store: RequestAndTickWriter):
    timing = b'queue;dur=0.0, parse;dur=0.1, error;desc="invalid-instances", gateway;dur=0.1'
    store.write([recorded(status=422, server_timing=timing)], 1)
    out = shell.ok("why", "--errors").out
    assert "invalid-instances, answered by the backend, for the caller to fix" in out
    assert "chips logs wine" in out


@pytest.mark.parametrize(
    "given", [(), ("some-id", "--last"), ("--last", "--slowest", "wine"), ("--errors", "--slowest", "wine")]
)
def test_which_request_is_said_in_one_way(shell: Shell, store: RequestAndTickWriter, given: tuple[str, ...]):
    ended = shell("why", *given)
    assert ended.code == 64
    assert "--last" in ended.err

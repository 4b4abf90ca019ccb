"""The supervisor of the workers where the system has no room for it at the moment."""

import errno
import os
import select
import socket
import sys
from pathlib import Path

import pytest

from gateway import reuseport_workers, serve
from gateway.server.listener import listen
from gateway.settings import load_settings


def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    def no_process() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("gateway.reuseport_workers.os.fork", no_process)
    supervisor = reuseport_workers.WorkerPool(
        1, lambda *_: 0, tell=lambda _, text: told.append(text), grace_s=1
    )
    for _ in range(3):
        supervisor._start(0)
        assert 0 in supervisor._due
    assert [text.rpartition(" in ")[2] for text in told] == ["0.1 s", "0.2 s", "0.4 s"]
    assert all("cannot be started" in text for text in told)


def test_a_port_is_reserved_once():
    with reuseport_workers.reserve_port("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        # Before any worker listens on it, as where two gateways begin within a second.
        with pytest.raises(OSError, match="in use"):
            reuseport_workers.reserve_port("127.0.0.1", port)
        for listener in listen("127.0.0.1", port, shared=True):
            listener.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_is_reserved_again_after_a_server_that_has_just_ended(shared: bool):
    (listener,) = listen("127.0.0.1", 0, shared=shared)
    address = listener.getsockname()
    with listener, socket.create_connection(address) as caller:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        accepted.close()  # first, so that it is this end that waits in TIME_WAIT (RFC 9293, 3.6)
        assert caller.recv(1) == b""
    reuseport_workers.reserve_port(*address).close()


@pytest.mark.parametrize("as_json", ["json", "text"])
def test_a_reader_that_pauses_does_not_stop_it(as_json: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(flags={"log.format": as_json}, environ={})
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb"):
        monkeypatch.setattr(sys, "stdout", stream)
        poll = select.poll()
        poll.register(writing, select.POLLOUT)
        while poll.poll(0):
            serve.log_as_supervisor(settings, "ERROR", "worker 0 ended\nforged " + "x" * 200)
        serve.log_as_supervisor(settings, "ERROR", "this one is lost, and nobody waits")

"""`chips rollouts run`: what it says where it cannot begin."""

import socket

import pytest

from tests.unit.cli.shell import Shell


def test_a_port_that_is_taken_is_told_with_the_option(shell: Shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = shell.run("rollouts", "run", "--host", "127.0.0.1", "--port", port)
    assert ended.code == 69
    assert f"cannot listen at 127.0.0.1:{port}" in ended.err
    assert "--port" in ended.err


def test_a_secret_that_is_not_there_is_told_with_its_setting(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHIPS_ROLLOUTS__WEBHOOK_SECRET_FILE", "none")
    ended = shell.run("rollouts", "run")
    assert ended.code == 78
    assert "rollouts.webhook_secret_file" in ended.err

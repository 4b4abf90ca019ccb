"""`chips rollouts run`: what it says where it cannot begin."""

import socket
from pathlib import Path

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


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), ("whsec_not base64", "must be base64"), ("whsec_", "not empty")],
)
def test_a_secret_that_is_none_is_told_with_its_setting(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, why: str
):
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("CHIPS_ROLLOUTS__WEBHOOK_SECRET_FILE", str(file))
    ended = shell.run("rollouts", "run")
    assert ended.code == 78
    assert "rollouts.webhook_secret_file" in ended.err
    assert why in ended.err
    assert "not base64" not in ended.err, "it is a secret"

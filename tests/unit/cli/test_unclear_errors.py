"""Errors that used to come out as Python's own words."""

from pathlib import Path

import pytest
import yaml

from tests.unit.cli.shell import Shell


@pytest.mark.parametrize(
    "words", [("logs", "/etc"), ("stop", "../x"), ("restart", "wine", "--version", "../1")]
)
def test_what_can_be_no_name_of_a_backend(shell: Shell, words: tuple[str, ...]):
    ended = shell(*words)
    assert (ended.code, "cannot be a" in ended.err, "chips ps" in ended.err) == (65, True, True), ended


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("mlflow", "MLmodel", {"flavors": {"python_function": {}}, "signature": {"inputs": "nonsense"}}),
        (
            "mlflow",
            "MLmodel",
            {"flavors": {"python_function": {}}, "signature": {"inputs": '[{"name": "a"}]'}},
        ),
        ("vetiver", "data.txt", {"file": ["a", "b"], "type": "joblib", "user": {"ptype": '{"a": 1}'}}),
    ],
)
def test_a_description_that_another_tool_did_not_write(
    shell: Shell, tmp_path: Path, kind: str, file: str, content: object
):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / file).write_text(yaml.safe_dump(content))
    ended = shell("import-model", f"{kind}:{tmp_path}/given", "--name", "wine")
    assert (ended.code, f"is not as {kind} writes it" in ended.err) == (65, True), ended


def test_a_backend_that_is_not_there(shell: Shell):
    ended = shell("verify", "http://127.0.0.1:9", "--wait", "0")
    assert "no connection to 127.0.0.1:9: Connection refused" in ended.err

"""`chips verify` at the shell: what a person sees, what a machine reads, how it ends."""

import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from gateway.verify.run import CHECKS
from tests.contract.backends.broken import SAMPLES, Whole
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import ScriptedBackend
from tests.unit.cli.shell import Shell


@pytest.fixture
def whole(background: BackgroundServers) -> ScriptedBackend:
    return background.backend(Whole())


@pytest.fixture
def broken(background: BackgroundServers) -> ScriptedBackend:
    contract = Whole(parameters={})
    contract.routes["/openapi.json"] = (200, b"<html>\x1b[2J", [("Content-Type", "text/html")])
    return background.backend(contract)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_bytes(msgspec.json.encode({"schema": 1, "model": "wine", "version": "1", "samples": SAMPLES}))
    return path


def test_a_backend_that_keeps_the_contract_ends_with_0(shell: Shell, whole: ScriptedBackend, manifest: Path):
    out = shell.ok(
        "verify", whole.url, "--samples", str(manifest), "--only", "about", "--only", "predict"
    ).out
    assert f"wine@1 at {whole.url} keeps the contract: 17 checks" in out
    assert "failed    " not in out


def test_each_failure_says_what_the_contract_says_what_was_sent_and_what_came(
    shell: Shell, broken: ScriptedBackend
):
    ended = shell("verify", broken.url, "--only", "about")
    assert ended.code == 76
    for told in (
        "failed    about/concurrency",
        "parameters.concurrency is None",
        "GET /v2/models/wine",
        "X-Chips-Model: wine@1",
        "failed    about/openapi",
        r"<html>\x1b[2J",
        "2 of 7 checks failed",
    ):
        assert told in ended.out, told
    assert "\x1b[2J" not in ended.out


def test_what_was_not_checked_is_said_with_its_reason(shell: Shell, whole: ScriptedBackend):
    out = shell.ok("verify", whole.url, "--only", "logs", "--only", "predict/samples").out
    assert "logs/json-lines, logs/request" in out
    assert "let the kit start it with --command" in out
    assert "predict/samples: no samples" in out


def test_for_a_machine(shell: Shell, broken: ScriptedBackend):
    ended = shell("verify", broken.url, "--only", "about", "--json")
    assert ended.code == 76
    told = ended.json()
    assert (told["model"], told["version"], told["passed"], told["failed"]) == ("wine", "1", 5, 2)
    by_name = {check["name"]: check for check in told["checks"]}
    failed = by_name["about/concurrency"]
    assert failed["outcome"] == "failed"
    assert failed["sent"].startswith("GET /v2/models/wine")
    assert failed["came"].startswith("200")
    assert "sent" not in by_name["about/live"]


def test_as_junit(shell: Shell, broken: ScriptedBackend, tmp_path: Path):
    path = tmp_path / "results.xml"
    shell("verify", broken.url, "--only", "about", "--only", "logs/request", "--junit", str(path))
    suite = ET.parse(path).getroot()  # noqa: S314  (our own)
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "8",
        "failures": "2",
        "skipped": "1",
    }
    (failed,) = [case for case in suite if case.get("name") == "openapi"]
    assert failed.get("classname") == "contract.about"
    text = failed[0].text or ""
    assert "the contract: GET /openapi.json" in text
    assert r"<html>\x1b[2J" in text


def test_a_junit_file_that_cannot_be_written_is_told_before_anything_is_checked(
    shell: Shell, whole: ScriptedBackend, tmp_path: Path
):
    ended = shell(
        "verify", whole.url, "--only", "about/live", "--junit", str(tmp_path / "no/such/results.xml")
    )
    assert ended.code == 65
    assert "results.xml" in ended.err
    assert whole.seen == []


def test_the_list_names_every_check(shell: Shell):
    listed = shell.ok("verify", "--list", "--json").json()
    assert [check["name"] for check in listed] == [check.name for check in CHECKS]
    assert "tensors/no-shape" in shell.ok("verify", "--list", "--only", "tensors").out


def test_own_header_fields_go_with_every_request(shell: Shell, whole: ScriptedBackend):
    shell.ok("verify", whole.url, "--only", "predict/answer", "--header", "Authorization: Bearer x:y")
    assert whole.seen
    assert all(request.get("Authorization") == "Bearer x:y" for request in whole.seen)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 64, "--command"),
        (("http://127.0.0.1:9", "--command", "x"), 64, "--command"),
        (("http://127.0.0.1:9", "--only", "nothing"), 64, "no check matches nothing"),
        (("http://127.0.0.1:9", "--header", "no colon"), 64, "NAME:VALUE"),
        (("http://127.0.0.1:9", "--header", "A: b\r\nX: y"), 64, "NAME:VALUE"),
        (("127.0.0.1:9",), 65, "must begin with http"),
        (("http://127.0.0.1:9", "--samples", "nowhere.json"), 65, "nowhere.json cannot be read"),
        (("http://127.0.0.1:9", "--wait", "0"), 69, "not ready: no connection"),
        (("--command", "/no/such/program"), 69, "cannot be started"),
        (("--command", "'open quote"), 69, "cannot be started"),
    ],
)
def test_what_cannot_be_checked_says_why(shell: Shell, arguments: tuple[str, ...], code: int, says: str):
    ended = shell("verify", *arguments)
    assert ended.code == code, ended
    assert says in ended.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *(
            (content, "neither a manifest nor a list of samples")
            for content in ("{", '{"samples": {}}', "[1]", '"text"')
        ),
        ("\xff", "is not UTF-8"),
    ],
)
def test_samples_that_are_none_say_so(shell: Shell, tmp_path: Path, content: str, says: str):
    path = tmp_path / "samples.json"
    path.write_bytes(content.encode("latin-1"))
    ended = shell("verify", "http://127.0.0.1:9", "--samples", str(path))
    assert ended.code == 65
    assert says in ended.err


def test_samples_may_stand_alone(shell: Shell, whole: ScriptedBackend, tmp_path: Path):
    path = tmp_path / "samples.json"
    path.write_bytes(msgspec.json.encode(SAMPLES))
    out = shell.ok("verify", whole.url, "--samples", str(path), "--only", "predict/samples").out
    assert "1 checks" in out


def test_a_backend_that_says_not_who_it_is_must_be_told(shell: Shell, background: BackgroundServers):
    contract = Whole()
    contract.routes["/v2/health/ready"] = (200, b"{}", [])
    backend = background.backend(contract)
    ended = shell("verify", backend.url)
    assert ended.code == 69
    assert "--model" in ended.err
    shell.ok("verify", backend.url, "--model", "wine", "--only", "about/metadata")


def test_a_program_that_ends_at_once_is_told_with_its_last_words(shell: Shell):
    script = "import sys; print('the model is on holiday'); sys.exit(3)"
    ended = shell("verify", "--command", shlex.join([sys.executable, "-c", script]))
    assert ended.code == 69
    assert "ended with 3 before it was ready" in ended.err
    assert "the model is on holiday" in ended.err

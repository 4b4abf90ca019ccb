# Long: one life of local backends, command by command.
"""`chips deploy --target local`: real processes, a real model, interrupted wherever it can be."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.deploy.local_process_target import LocalProcessTarget, _children
from tests.patience import patience
from tests.probes import runs, until
from tests.unit.cli.shell import Shell

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def nothing_runs_on(shell: Shell, tmp_path: Path) -> Iterator[None]:
    yield
    for note in notes():
        shell(
            "undeploy", note.parent.parent.name, "--version", note.parent.name, "--target", "local", "--force"
        )
    for process in list(_children.values()):
        process.terminate()  # a supervisor ends its backend
        process.wait()
    _children.clear()


def notes() -> list[Path]:
    return sorted((Path(os.environ["XDG_STATE_HOME"]) / "chips/local").glob("*/*/*.json"))


def deployed(shell: Shell, folder: Path, *options: str) -> Any:
    return shell.ok("deploy", str(folder), "--target", "local", "--json", *options).json()


def score(url: str, samples: Path) -> Any:
    sample = json.loads(samples.read_text())[0]
    request = urllib.request.Request(
        f"{url}/predict", json.dumps(sample["request"]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["predictions"] == sample["response"]["predictions"]


def test_from_a_folder_to_an_answer_and_back(shell: Shell, backend_folder: Path):
    first = deployed(shell, backend_folder)
    assert list(first["steps"]) == ["check", "try", "publish", "build", "start", "verify", "register"]
    assert score(first["url"], backend_folder / "samples.json")
    assert shell.model()["traffic"] == {"1": 100}
    (record,) = shell.ok("evidence", "wine@1", "--json").json()
    assert record["facts"]["checks"]["predict/answer"] == "passed"
    assert [*record["facts"]["checks"].values()].count("passed") == record["facts"]["passed"] > 20

    assert not first["unchanged"]
    again = deployed(shell, backend_folder)
    assert again["url"] == first["url"], "what runs already is not started twice"
    assert again["unchanged"]
    said = shell.ok("deploy", str(backend_folder), "--target", "local").out
    assert f"unchanged wine@1 runs already with this model and this code at {first['url']}" in said
    assert "\ndeployed" not in said

    second = deployed(shell, backend_folder, "--version", "2")
    assert second["url"] != first["url"]
    assert shell.model()["traffic"] == {"1": 100, "2": 0}
    shell.ok("traffic", "wine", "1=0", "2=100")

    ended = shell("undeploy", "wine", "--version", "2", "--target", "local")
    assert ended.code == 65
    assert "takes 100 % of the traffic" in ended.err
    shell.ok("undeploy", "wine", "--version", "1", "--target", "local")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(first["url"])
    assert [b["version"] for b in shell.model()["backends"]] == ["2"]
    assert shell("undeploy", "wine", "--version", "1", "--target", "local").code == 65


@pytest.mark.slow
def test_progress_is_told_step_by_step(shell: Shell, backend_folder: Path):
    out = shell.ok("deploy", "wine", "--target", "local").out
    assert "1/7 check" in out
    assert "7/7 register" in out
    assert "wine@1 takes 100 % of the traffic" in out
    assert "\x1b" not in out
    assert "KEY=$(chips keys create me --models wine)" in out
    assert 'curl http://127.0.0.1:9/wine -H "X-Api-Key: $KEY" --json \'{"instances":' in out


@pytest.mark.slow
def test_a_version_without_traffic_is_called_at_its_own_address(shell: Shell, backend_folder: Path):
    deployed(shell, backend_folder)
    out = shell.ok("deploy", "wine", "--version", "2", "--target", "local").out
    (line,) = [line for line in out.splitlines() if line.startswith("try")]
    done = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("try").strip()], capture_output=True, text=True, check=True
    )
    sample = json.loads((backend_folder / "samples.json").read_text())[0]
    assert json.loads(done.stdout)["predictions"] == sample["response"]["predictions"]


def test_a_dry_run_checks_all_that_can_be_checked_and_changes_nothing(
    shell: Shell, backend_folder: Path, tmp_path: Path
):
    out = shell.ok("deploy", "wine", "--target", "local", "--dry-run").out
    assert "1 check     checked  a process on this machine" in out
    assert "2 try       checked  it loads, and 3 samples came out as published" in out
    assert "(new)" in out
    assert "7 register  would    put it into the registry" in out
    assert "nothing was changed" in out
    assert not (tmp_path / "artifacts").exists()
    assert notes() == []
    assert shell.ok("models", "--json").json() == []


def break_samples(backend_folder: Path) -> None:
    samples = json.loads((backend_folder / "samples.json").read_text())
    samples[0]["response"]["predictions"] = [99]
    (backend_folder / "samples.json").write_text(json.dumps(samples))


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.slow
def test_what_cannot_be_served_costs_no_version(
    shell: Shell, backend_folder: Path, tmp_path: Path, options: tuple[str, ...]
):
    break_samples(backend_folder)
    ended = shell("deploy", "wine", "--target", "local", *options)
    assert ended.code == 65
    assert "try: " in ended.err
    assert "first sample came out differently" in ended.err
    assert "run the same command again" in ended.err
    assert not (tmp_path / "artifacts").exists()
    assert shell.ok("models", "--json").json() == []


def test_a_backend_that_does_not_start_is_not_registered(shell: Shell, backend_folder: Path):
    break_samples(backend_folder)
    ended = shell("deploy", "wine", "--target", "local", "--no-try")
    assert ended.code == 70
    assert "start: " in ended.err
    assert "first sample came out differently" in ended.err
    assert "chips logs wine --version 1" in ended.err
    assert "first sample came out differently" in shell.ok("logs", "wine").out
    assert notes() == []
    assert shell.ok("models", "--json").json() == []


@pytest.mark.slow
def test_another_content_under_one_version_is_refused(shell: Shell, backend_folder: Path):
    deployed(shell, backend_folder)
    (backend_folder / "artifact/notes.txt").write_text("more")
    ended = shell("deploy", "wine", "--target", "local")
    assert ended.code == 73
    assert "under another --version" in ended.err


@pytest.mark.parametrize(
    "step",
    ["start", *(pytest.param(step, marks=pytest.mark.slow) for step in ("publish", "verify", "register"))],
)
def test_killed_at_any_step_the_same_command_goes_on(shell: Shell, backend_folder: Path, step: str):
    process = shell.start("deploy", "wine", "--target", "local")
    assert process.stdout is not None
    for line in process.stdout:
        if f" {step}" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    finished = deployed(shell, backend_folder)
    assert score(finished["url"], backend_folder / "samples.json")
    assert shell.model()["traffic"] == {"1": 100}
    assert shell.model()["revision"] == 1


@pytest.mark.slow
def test_two_deploys_of_one_version_at_once_make_one(shell: Shell, backend_folder: Path):
    processes = [shell.start("deploy", "wine", "--target", "local", "--json") for _ in range(2)]
    ended = [(process.communicate(timeout=patience(120)), process.returncode) for process in processes]
    urls = {json.loads(out)["url"] for (out, _), code in ended if code == 0}
    assert len(urls) == 1, ended
    # Both wrote the same, so the second finds it unchanged or loses a race that it is told of.
    assert {code for _, code in ended} <= {0, 75}, ended
    assert len(shell.model()["backends"]) == 1


@pytest.mark.slow
def test_the_name_of_somebody_elses_process_is_never_killed(shell: Shell, backend_folder: Path):
    deployed(shell, backend_folder)
    (note,) = notes()
    state = note.with_suffix(".state")
    ours = json.loads(state.read_text())
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        theirs = {name: {**ours[name], "pid": stranger.pid} for name in ("supervisor", "backend")}
        state.write_text(json.dumps({**ours, **theirs}))
        shell("undeploy", "wine", "--version", "1", "--target", "local", "--force")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        os.kill(ours["supervisor"]["pid"], signal.SIGTERM)


def test_interrupted_before_the_supervisor_has_said_anything_nothing_is_left(
    shell: Shell, backend_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    started: list[int] = []

    def interrupt(*_: Any) -> None:
        started.extend(_children)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalProcessTarget, "_wait", interrupt)
    assert shell("deploy", "wine", "--target", "local").code == 130
    assert len(started) == 1
    assert not runs(started[0])
    assert notes() == []


# -- deployed again


@pytest.mark.slow
def test_changed_code_replaces_what_runs_once_it_is_registered(shell: Shell, backend_folder: Path):
    first = deployed(shell, backend_folder)
    (backend_folder / "helper.py").write_text("FACTOR = 2\n")
    second = deployed(shell, backend_folder)
    assert second["url"] != first["url"]
    assert [b["url"] for b in shell.model()["backends"]] == [second["url"]]
    assert score(second["url"], backend_folder / "samples.json")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(first["url"])
    assert len(notes()) == 1


@pytest.mark.slow
def test_changed_code_that_fails_leaves_what_runs(shell: Shell, backend_folder: Path):
    first = deployed(shell, backend_folder)
    (backend_folder / "chips_backend.py").write_text(
        "raise SystemExit('not today')\n"
    )  # found before the package
    ended = shell("deploy", "wine", "--target", "local")
    assert ended.code == 70
    assert "not today" in ended.err
    assert score(first["url"], backend_folder / "samples.json")
    (backend_folder / "chips_backend.py").unlink()
    assert deployed(shell, backend_folder)["url"] == first["url"]


# -- local backends live


def entry(shell: Shell) -> Any:
    (found,) = shell.ok("ps", "--json").json()
    return found


def test_a_backend_that_falls_is_started_again_at_its_address(shell: Shell, backend_folder: Path):
    url = deployed(shell, backend_folder)["url"]
    before = entry(shell)
    os.kill(before["pid"], signal.SIGKILL)
    after = until(lambda: (e := entry(shell))["state"] == "ready" and e["pid"] != before["pid"] and e)
    assert (after["url"], after["fell"], after["last_exit"]) == (url, 1, -9)
    assert score(url, backend_folder / "samples.json")
    assert "1 times, last with -9" in shell.ok("ps").out


def doctored(shell: Shell) -> list[Any]:
    """What the doctor says of the version 1 of wine."""
    return [finding for finding in shell("doctor", "--json").json() if finding["subject"] == "wine@1"]


@pytest.mark.slow
def test_after_a_reboot_all_is_back(shell: Shell, backend_folder: Path):
    url = deployed(shell, backend_folder)["url"]
    (note,) = notes()
    state = json.loads(note.with_suffix(".state").read_text())
    for process in ("supervisor", "backend"):
        os.kill(state[process]["pid"], signal.SIGKILL)
    _children.pop(state["supervisor"]["pid"]).wait()
    assert until(lambda: entry(shell)["state"] == "not running")
    assert "chips up" in shell.ok("ps").out
    assert [each["fix"] for each in doctored(shell)] == ["chips up"]
    (started,) = shell.ok("up", "--json").json()
    assert (started["url"], started["state"]) == (url, "ready")
    assert score(url, backend_folder / "samples.json")
    assert shell.ok("up", "--json").json() == []


@pytest.mark.slow
def test_a_backend_without_its_supervisor_is_not_started_twice(shell: Shell, backend_folder: Path):
    deployed(shell, backend_folder)
    (note,) = notes()
    state = json.loads(note.with_suffix(".state").read_text())
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    _children.pop(state["supervisor"]["pid"]).wait()
    (started,) = shell.ok("up", "--json").json()
    assert (started["state"], started["pid"] != state["backend"]["pid"]) == ("ready", True)
    assert not runs(state["backend"]["pid"])


def test_stopped_it_stays_down_until_it_is_restarted(shell: Shell, backend_folder: Path):
    url = deployed(shell, backend_folder)["url"]
    shell.ok("stop", "wine")
    assert entry(shell)["state"] == "stopped"
    assert [each["fix"] for each in doctored(shell)] == ["chips restart wine --version 1"]
    assert shell.ok("up", "--json").json() == []
    (started,) = shell.ok("restart", "wine", "--json").json()
    assert (started["url"], started["state"]) == (url, "ready")
    assert "ready: wine@1" in shell.ok("logs", "wine", "-n", "20").out
    assert len(shell.ok("logs", "wine", "-n", "1").out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [("stop", "beer"), ("restart", "beer"), ("logs", "beer"), ("logs", "beer", "--version", "1")]
)
def test_what_was_not_deployed_here_is_told(shell: Shell, arguments: tuple[str, ...]):
    ended = shell(*arguments)
    assert ended.code == 65
    assert "was deployed to this machine" in ended.err


def test_with_nothing_deployed_there_is_nothing_to_do(shell: Shell):
    assert "chips deploy" in shell.ok("ps").out
    assert shell.ok("up", "--json").json() == []


@pytest.mark.slow
def test_watching_deploys_again_on_each_change(shell: Shell, backend_folder: Path, tmp_path: Path):
    process = shell.start("deploy", "wine", "--watch")
    assert process.stdout is not None
    lines = iter(process.stdout)
    assert any(line.startswith("watching") for line in lines)
    assert [b["version"] for b in shell.model()["backends"]] == ["1-dev"]
    first = entry(shell)["url"]
    (backend_folder / "helper.py").write_text("FACTOR = 2\n")
    assert any(line.startswith("watching") for line in lines)
    assert entry(shell)["url"] != first
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=patience(60))
    assert "wine@1-dev is taken away" in out, err
    assert notes() == []
    assert not (tmp_path / "artifacts").exists(), "the scratch version is published nowhere"


def test_a_name_of_somebody_else_is_not_taken(shell: Shell, backend_folder: Path, tmp_path: Path):
    shell.register("wine", "0", "--owner", "ana@example.com")
    ended = shell("deploy", "wine", "--target", "local", "--owner", "eve@example.com")
    assert ended.code == 65
    assert "belongs to ana@example.com" in ended.err
    assert not (tmp_path / "artifacts").exists()
    assert shell.model()["owner"] == "ana@example.com"


def test_a_name_that_leads_elsewhere_ends_nothing(shell: Shell, tmp_path: Path):
    victim = Path(os.environ["XDG_STATE_HOME"]) / "victim"
    victim.mkdir(parents=True)
    (victim / "config.json").write_text("{}")
    for name, version in (("../../victim", "config"), ("wine", "../../../victim/config")):
        ended = shell("undeploy", name, "--version", version, "--target", "local")
        assert ended.code == 65, ended
    assert [path.name for path in victim.iterdir()] == ["config.json"]


BAD_FOLDERS = {
    "no settings": (None, "there is no"),
    "not TOML": ("model =", "not valid TOML"),
    "a typing mistake": ('model = "wine"\nversoin = "1"\n', "did you mean version?"),
    "no version": ('model = "wine"\n', "no version"),
    "a name that cannot be": ('model = "Wine"\nversion = "1"\n', "cannot be a model's name"),
    "an artifact that is not there": ('model = "wine"\nversion = "1"\nartifact = "x"\n', "there is no"),
    "a number that is too large": ('model = "wine"\nversion = "1"\nconcurrency = 5000\n', "1000"),
    "no command": ('model = "wine"\nversion = "1"\n', "how it runs here"),
}


@pytest.mark.parametrize("what", BAD_FOLDERS)
def test_a_folder_that_is_wrong_is_told(shell: Shell, backend_folder: Path, what: str):
    content, told = BAD_FOLDERS[what]
    settings = backend_folder / "backend.toml"
    if content is None:
        settings.unlink()
    else:
        settings.write_text(content)
    ended = shell("deploy", "wine", "--target", "local")
    assert ended.code in {65, 69}, ended
    assert told in ended.err
    assert shell("deploy", "nowhere", "--target", "local").code == 65


LIAR = """
import http.server, json, os
class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, version = os.environ["CHIPS_MODEL"], os.environ["CHIPS_VERSION"]
        body = json.dumps({"name": name, "versions": [version], "live": True, "ready": True}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Liar).serve_forever()
"""


def test_a_backend_that_breaks_the_contract_is_not_registered(shell: Shell, backend_folder: Path):
    (backend_folder / "liar.py").write_text(LIAR)
    settings = (backend_folder / "backend.toml").read_text()
    (backend_folder / "backend.toml").write_text(settings.replace('"-m", "chips_backend"', '"liar.py"'))
    ended = shell("deploy", "wine", "--target", "local", "--no-try")
    assert ended.code == 76
    assert "verify: " in ended.err
    assert "is not registered" in ended.err
    assert "chips verify http://" in ended.err
    assert shell.ok("models", "--json").json() == []


def model_of_own_code(backend_folder: Path) -> None:
    """In the place of the wine model, one that looks at all rows of a request."""
    artifact = backend_folder / "artifact"
    (artifact / "model.joblib").unlink()
    (artifact / "model.py").write_text(
        "def load(folder):\n    return None\n\n"
        "def predict(model, rows, parameters):\n"
        "    values = [row[0] for row in rows]\n"
        "    return [value - sum(values) / len(values) for value in values] if len(values) > 1 else values\n"
    )
    samples = json.loads((backend_folder / "samples.json").read_text())
    for sample in samples:
        first = sample["request"]["instances"][0]
        sample["response"]["predictions"] = [next(iter(first.values()))]
    (backend_folder / "samples.json").write_text(json.dumps(samples))
    signature = json.loads((backend_folder / "signature.json").read_text())
    signature["outputs"] = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    (backend_folder / "signature.json").write_text(json.dumps(signature))


@pytest.mark.slow
def test_a_model_whose_answers_depend_on_other_rows_is_not_registered(shell: Shell, backend_folder: Path):
    model_of_own_code(backend_folder)
    ended = shell("deploy", "wine", "--target", "local")
    assert ended.code == 76
    assert "try: rows/together" in ended.err
    assert shell.ok("models", "--json").json() == []


def test_unless_the_folder_says_that_this_is_on_purpose(shell: Shell, backend_folder: Path):
    model_of_own_code(backend_folder)
    with (backend_folder / "backend.toml").open("a") as settings:
        settings.write('rows = "together"\n')
    url = deployed(shell, backend_folder)["url"]
    with urllib.request.urlopen(f"{url}/v2/models/wine") as answer:
        assert json.load(answer)["parameters"]["rows"] == "together"

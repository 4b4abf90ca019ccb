# Long: the demo is a script that is read from top to bottom.
"""The whole system on this machine: a real model trained, published, served, registered and scored.

    python -m examples.demo [--once] [--folder DIR]

Every step is the command that a person would type, shown as it is run. All it makes lies in one folder, .demo, which is
made again each time. `--once` ends after the score, with 0 or 1; otherwise everything runs on until Ctrl-C.

The backend is a plain process and none that `chips deploy` supervises and `chips ps` lists: a supervised one outlives the program
that started it and comes back with `chips up`, while this one must end with the demo, however that ends. To deploy would also load
the model twice more (the trial and the check of the contract), which takes longer than all steps here together.
"""

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.local import write_environment
from gateway.free_ports import claim_free_port

ROOT = Path(__file__).resolve().parent.parent
PORT = 8080
LOCK = ".chips-demo.lock"  # also the mark of a folder that may be emptied
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 12.0


class DemoError(Exception):
    """A step failed; the text says which, and what to look at."""


class Screen:
    """Steps, one block each. Colors on a terminal only."""

    def __init__(self) -> None:
        self._colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._step = 0

    def step(self, text: str) -> None:
        self._step += 1
        print(f"\n{self._paint('1', f'{self._step}. {text}')}", flush=True)

    def command(self, text: str) -> None:
        print(f"   {self._paint('36', '$ ' + text)}", flush=True)

    def output(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            print(f"   {line}", flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colored else text


class Child:
    """A program that runs next to the demo, its output in a file."""

    def __init__(self, name: str, module: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**environment(folder), **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its children in order
            )

    def check(self) -> None:
        if self.process.poll() is not None:
            tail = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-8:])
            raise DemoError(
                f"the {self.name} ended with {self.process.returncode}; the end of {self.log}:\n{tail}"
            )

    def wait_until_ready(self, url: str) -> None:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < give_up_at:
            self.check()
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                urllib.request.urlopen(url, timeout=2) as answer,  # noqa: S310
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise DemoError(f"the {self.name} was not ready within {READY_WITHIN_S:.0f} seconds; see {self.log}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without the settings of a gateway or backend that is none of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHIPS_", "AIP_")) and name not in {"PORT", "STORAGE_EMULATOR_HOST"}
    }
    return {**kept, **places(folder)}


def places(folder: Path) -> dict[str, str]:
    """The settings that say where the registry, the artifacts and the kept requests lie."""
    return {
        "CHIPS_REGISTRY": f"sqlite:{folder / 'registry.db'}",
        "CHIPS_ARTIFACTS": str(folder / "artifacts"),
        "CHIPS_TRACE__STORE": str(folder / "requests.db"),
    }


def run(screen: Screen, folder: Path, arguments: Sequence[str], *, shown: str | None = None) -> str:
    """Run one command to its end; show and return what it printed on standard output."""
    screen.command(shown or shlex.join(arguments))
    executable = {"chips": [sys.executable, "-m", "gateway.cli"], "python": [sys.executable]}[arguments[0]]
    done = subprocess.run(
        [*executable, *arguments[1:]],
        env={**environment(folder), "COLUMNS": "150"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"{shlex.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    screen.output(done.stdout)
    return done.stdout


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """`folder`, empty, and ours alone for as long as we run."""
    if folder.exists() and not (folder / LOCK).exists() and any(folder.iterdir()):
        raise DemoError(f"{folder} holds files that are not a demo's; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo runs in {folder.absolute()}: stop it first, with Ctrl-C") from None
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        yield


def score(url: str, key: str, body: Any) -> Any:
    request = urllib.request.Request(  # noqa: S310
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "X-Api-Key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            served = answer.headers["X-Chips-Model"]
            return json.loads(answer.read()), served, answer.headers["X-Request-Id"]
    except urllib.error.HTTPError as error:
        raise DemoError(f"the score was refused with {error.code}: {error.read().decode()}") from None


def demo(screen: Screen, folder: Path, children: list[Child], *, once: bool) -> None:
    print(f"CHIPS on this machine alone: no cloud account, no container. Everything lies in {folder}/")
    screen.step("Train a model: which of three cultivars is this wine?")
    run(screen, folder, ["python", "examples/wine/train.py", str(folder / "training")])

    screen.step("Publish it: files and digests, as a version that never changes")
    training = folder / "training"
    published = ["chips", "publish", str(training / "model.joblib"), "--model", "wine", "--version", "1"]
    described = ["--signature", str(training / "signature.json"), "--samples", str(training / "samples.json")]
    run(screen, folder, [*published, *described])

    screen.step("Serve it: a backend in a process of its own")
    backend_port = claim_free_port()
    backend_environ = {
        "CHIPS_MODEL": "wine",
        "CHIPS_VERSION": "1",
        "CHIPS_ARTIFACT": str(folder / "artifacts/wine/1"),
        "PORT": str(backend_port),
    }
    screen.command(
        " ".join(f"{name}={value}" for name, value in backend_environ.items()) + " python -m chips_backend &"
    )
    backend = Child("backend", "chips_backend", folder, backend_environ)
    children.append(backend)
    backend_url = f"http://127.0.0.1:{backend_port}"
    backend.wait_until_ready(f"{backend_url}/v2/health/ready")
    screen.output(f"ready at {backend_url}; its log is {backend.log}")

    screen.step("Start the gateway: the one address that callers know")
    port = claim_free_port(prefer=PORT)
    if port != PORT:
        screen.output(f"port {PORT} is taken here, so the gateway takes {port}")
    screen.command(f"CHIPS_SERVER__PORT={port} python -m gateway &")
    gateway = Child(
        "gateway", "gateway", folder, {"CHIPS_SERVER__PORT": str(port), "CHIPS_SERVER__HOST": "127.0.0.1"}
    )
    children.append(gateway)
    address = f"http://127.0.0.1:{port}"
    gateway.wait_until_ready(f"{address}/-/ready")
    screen.output(f"ready at {address}; its log is {gateway.log}")

    screen.step("Make a key for a caller")
    key = run(screen, folder, ["chips", "keys", "create", "demo", "--models", "wine"]).strip()

    screen.step("Register the backend: probed, written, live")
    run(
        screen,
        folder,
        ["chips", "register", "wine", backend_url, "--owner", "you", "--gateway", address],
        shown=f"python -m gateway.register wine {backend_url} --owner you",
    )

    screen.step("Score, as a client application does")
    sample = json.loads((training / "samples.json").read_text())[0]
    row = list(sample["request"]["instances"][0].values())
    body = {"instances": [row]}
    curl = f"curl {address}/wine -H 'X-Api-Key: {key}' -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    screen.command(curl)
    answer, served, request_id = score(f"{address}/wine", key, body)
    screen.output(json.dumps(answer))
    if answer["predictions"] != sample["response"]["predictions"]:
        raise DemoError(f"the model said {sample['response']['predictions']} when it was trained")
    screen.output(
        f"answered by {served}, as request {request_id}: cultivar {answer['predictions'][0]}, as in training"
    )
    if once:
        return
    operator = make_operator_key(folder)
    variables = {
        **places(folder.absolute()),
        "CHIPS_GATEWAY": address,
        "CHIPS_KEY": operator,
        "BACKEND": backend_url,
        "KEY": key,
    }
    write_environment(folder / "env", variables)
    next_steps(screen, folder, address, key, operator)
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


def make_operator_key(folder: Path) -> str:
    create = [sys.executable, "-m", "gateway.cli", "keys", "create", "operator of the demo"]
    verbs = ["--verbs", "score", "--verbs", "metadata", "--verbs", "operate"]
    done = subprocess.run(
        [*create, *verbs], env=environment(folder), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def next_steps(screen: Screen, folder: Path, address: str, key: str, operator: str) -> None:
    screen.step("It keeps running. Try, in another terminal:")
    wrong = f"curl -i {address}/wine -H 'X-Api-Key: wrong' -H 'Content-Type: application/json' -d '{{}}'"
    for comment, command in (
        ("keys, addresses and the commands, for this terminal", f". {shlex.quote(str(folder / 'env'))}"),
        ("where did the time of that score go?", "chips why --last"),
        ("what may this key call?", f"curl {address}/ -H 'X-Api-Key: {key}'"),
        ("what goes in and out?", f"curl {address}/wine -H 'X-Api-Key: {key}'"),
        ("a wrong key", wrong),
        ("take it out of service, and back", "chips disable wine"),
        ("every request, as a log line", shlex.join(["tail", "-f", str(folder / "gateway.log")])),
    ):
        screen.output(f"# {comment}")
        screen.command(command)
    screen.output("# the same in a browser")
    screen.output(f"{address}/-/console/    key: {operator}")
    print("\nCtrl-C stops all of it.", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end after the score, with 0 or 1")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where everything goes [.demo]")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    os.chdir(ROOT)  # what is shown is relative to the checkout, so that it can be typed there
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children: list[Child] = []
    try:
        with own_folder(folder):
            try:
                demo(Screen(), folder, children, once=arguments.once)
            finally:
                for child in reversed(children):
                    child.stop()
    except DemoError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped: the gateway, the backend, everything")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the images as their Dockerfiles say, start what was built, score, and stop it: `python -m tests.images [IMAGE]...`

Needs root, buildah and debootstrap; no daemon and no container registry. The base images are a minimal Debian 13 made by
debootstrap from the mirror that apt uses on this machine, passed by each Dockerfile's own build argument. A backend's image is made of
what `chips deploy` uploads for a folder of `chips new`: the library's files, and the folder as model/. Each image then runs as
process 1 in a process namespace of its own, as uid 10001, on a read-only root with a `/tmp`, as Cloud Run would run it.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.deploy.backend_folder import PREDICT_NAMES, BackendFolder
from gateway.free_ports import claim_free_port
from tests.images.engine import IMAGES, ROOT, Engine, _revision
from tests.probes import is_ready

UID: Final = 10001
READY_S: Final = 120.0
STOP_S: Final = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make images", description=__doc__.split("\n", 1)[0])
    parser.add_argument("images", nargs="*", choices=[*IMAGES, []], help="those to build; nothing: all")
    wanted = parser.parse_args().images or list(IMAGES)
    for tool, package in (("buildah", "buildah"), ("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if shutil.which(tool) is None:
            sys.stderr.write(f"error: {tool} is missing: apt install {package}\n")
            return 1
    if os.getuid() != 0:
        sys.stderr.write("error: only root can build and enter images: sudo make images\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="chips-images-") as folder:
        work = Path(folder)
        engine = Engine(work)
        figures = []
        for name in wanted:
            built = engine.build(name, ROOT if name == "gateway" else backend_context(name, work))
            figures.append(built._replace(**run(name, engine, work)))
    width = max(len(one.image) for one in figures)
    sys.stdout.write(f"{'IMAGE':{width}}  BUILD  SIZE     START   OUTCOME\n")
    for one in figures:
        sys.stdout.write(
            f"{one.image:{width}}  {one.build_s:4.0f} s  {one.size_mb:4.0f} MB  {one.start_s:4.1f} s  {one.outcome}\n"
        )
    return 0


# -- running what was built


@contextlib.contextmanager
def started(root: Path, config: dict[str, Any], port: int, shared: Path, *arguments: str) -> Iterator[int]:
    """The image's own command as process 1; gives its process id as seen from here. `shared` is /data in it."""
    environment = [*config.get("Env", []), f"PORT={port}"]
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or []), *arguments]
    folder = config.get("WorkingDir") or "/"
    script = f"""
set -e
mount --make-rprivate /
mount --bind "{root}" "{root}"
mkdir -p "{root}/proc" "{root}/tmp" "{root}/data" "{root}/dev"
mount --bind "{shared}" "{root}/data"
mount -t tmpfs -o mode=1777 tmpfs "{root}/tmp"
mount -t proc proc "{root}/proc"
mount --rbind /dev "{root}/dev"
cp -L /etc/resolv.conf /etc/hosts "{root}/etc/" 2>/dev/null || true
mount -o remount,bind,ro "{root}"
exec env -i "$@"
"""  # noqa: S108  (inside the image)
    with (shared / "out.log").open("w") as log:
        process = subprocess.Popen(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *environment,
                "chroot", f"--userspec={UID}:{UID}", str(root), "sh", "-c", 'cd "$0" && exec "$@"', folder, *command,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process.pid
        inside = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(inside, signal.SIGTERM)
        code = process.wait(timeout=STOP_S)
        if code != 0:
            raise SystemExit(
                f"error: after SIGTERM it ended with {code}, not 0\n{(shared / 'out.log').read_text()[-3000:]}"
            )
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run(name: str, engine: Engine, work: Path) -> dict[str, Any]:
    root, config = engine.root(name)
    if str(config.get("User", "")).split(":")[0] != str(UID):
        raise SystemExit(f"error: the image {name} runs as {config.get('User')!r}, not as {UID}")
    if config.get("Labels", {}).get("org.opencontainers.image.revision") != _revision():
        raise SystemExit(f"error: the image {name} is not labelled with the revision it was built from")
    shared = work / f"{name}-data"
    shared.mkdir()
    os.chown(shared, UID, UID)
    return RUNS[name](root, config, shared)


def run_gateway(root: Path, config: dict[str, Any], shared: Path) -> dict[str, Any]:
    """Serves, knows a model that is registered while it runs, and passes a score on from a backend here."""
    port = claim_free_port()
    settings = ("--registry=sqlite:///data/registry.db", "--trace.store=off", "--server.host=127.0.0.1")
    with scripted_backend() as backend:
        began = time.monotonic()
        with started(root, config, port, shared, *settings):
            wait_for(f"http://127.0.0.1:{port}/-/ready", shared)
            start_s = time.monotonic() - began
            _chips(shared, "register", "wine", backend, "--version=1", "--no-probe", "--force", "--access=public", "--owner=images",
                   f"--gateway=http://127.0.0.1:{port}")  # fmt: skip
            answer = post(f"http://127.0.0.1:{port}/wine", {"instances": [[1.0]]})
            expect(answer, {"predictions": [42.0]})
    return {"start_s": start_s, "outcome": "started, registered, scored, SIGTERM, exit 0"}


# What is added to the folders' own code, so that an answer shows that the image has it.
OWN_PARAMETER: Final = {
    "python": "\nPARAMETERS = {'unit': str}\n",
    "r": '\nown_parameters <- function(model) "unit"\n',
}


def backend_context(language: str, work: Path) -> Path:
    """What `chips deploy` uploads for a folder that `chips new` wrote, with code around the model, once its model was trained."""
    folder = work / language
    _python(work, "-m", "gateway.cli", "new", language, language, "--predict", f"--folder={folder}")
    own = folder / PREDICT_NAMES[language]
    own.write_text(own.read_text() + OWN_PARAMETER[language])
    if language == "python":
        _python(work, "train.py", folder=folder)
    else:
        if shutil.which("Rscript") is None:
            raise SystemExit("error: Rscript is missing, which trains the example: apt install r-base-core")
        script = folder / "train.R"
        script.write_text(
            script.read_text().replace("overwrite = overwrite", 'packages = "ranger", overwrite = overwrite')
        )
        _command(work, ["Rscript", "--vanilla", "train.R"], folder, CHIPS=f"{sys.executable} -m gateway.cli")
    context = work / f"{language}-context"
    with tarfile.open(fileobj=io.BytesIO(BackendFolder(folder).reproducible_source_archive())) as archive:
        archive.extractall(context, filter="data")
    return context


def run_backend(language: str, root: Path, config: dict[str, Any], shared: Path) -> dict[str, Any]:
    _chips(shared, "publish", str(shared.parent / language / "trained"), f"--model={language}", "--version=1",
           f"--store={shared / 'artifacts'}", "--by=images")  # fmt: skip
    return _score_samples(root, config, shared, language)


def run_r(root: Path, config: dict[str, Any], shared: Path) -> dict[str, Any]:
    if not any(root.glob("usr/lib/R/site-library/ranger/DESCRIPTION")):
        raise SystemExit("error: the image lacks the package that chips_save() named")
    return run_backend("r", root, config, shared)


def _score_samples(root: Path, config: dict[str, Any], shared: Path, model: str) -> dict[str, Any]:
    _open_to_all(shared)
    port = claim_free_port()
    environment = [f"CHIPS_MODEL={model}", "CHIPS_VERSION=1", f"CHIPS_ARTIFACT=/data/artifacts/{model}/1"]
    config = {**config, "Env": [*config.get("Env", []), *environment]}
    samples = json.loads((shared / f"artifacts/{model}/1/manifest.json").read_text())["samples"]
    began = time.monotonic()
    with started(root, config, port, shared):
        wait_for(f"http://127.0.0.1:{port}/v2/health/ready", shared)
        start_s = time.monotonic() - began
        for sample in samples:
            got = post(f"http://127.0.0.1:{port}/predict", sample["request"])
            expect(got, sample["response"])
        own = {**samples[0]["request"], "parameters": {"unit": "kg"}}
        expect(post(f"http://127.0.0.1:{port}/predict", own), samples[0]["response"])
    return {"start_s": start_s, "outcome": f"started, {len(samples)} samples scored, SIGTERM, exit 0"}


RUNS: Final[Mapping[str, Callable[[Path, dict[str, Any], Path], dict[str, Any]]]] = {
    "gateway": run_gateway,
    "python": functools.partial(run_backend, "python"),
    "r": run_r,
}


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _chips(shared: Path, *arguments: str) -> None:
    _python(shared, "-m", "gateway.cli", *arguments)
    for path in shared.iterdir():  # the gateway in the image reads and writes it as uid 10001
        os.chown(path, UID, UID)


def _python(home: Path, *arguments: str, folder: Path = ROOT) -> None:
    _command(home, [sys.executable, *arguments], folder)


def _command(home: Path, command: Sequence[str], folder: Path, **environ: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home / "home"),
        "CHIPS_REGISTRY": f"sqlite:///{home / 'registry.db'}",
        "NO_COLOR": "1",
        **environ,
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def wait_for(url: str, shared: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not is_ready(url):
        if time.monotonic() > deadline:
            log = (shared / "out.log").read_text()[-3000:]
            raise SystemExit(f"error: {url} is not ready after {READY_S:.0f} s\n{log}")
        time.sleep(0.05)


def post(url: str, content: object) -> Any:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: {url} answers {error.code}: {error.read().decode()[:1000]}") from None


def expect(got: Any, wanted: Any) -> None:
    """All that `wanted` has, `got` has; numbers within a millionth."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            expect(got[name], value)
    elif isinstance(wanted, list):
        if len(got) != len(wanted):
            raise SystemExit(f"error: {got} is not {wanted}")
        for one, other in zip(got, wanted, strict=True):
            expect(one, other)
    elif isinstance(wanted, float):
        if abs(got - wanted) > 1e-6 * max(1.0, abs(wanted)):
            raise SystemExit(f"error: {got} is not {wanted}")
    elif got != wanted:
        raise SystemExit(f"error: {got!r} is not {wanted!r}")


@contextlib.contextmanager
def scripted_backend() -> Iterator[str]:
    """Answers every POST with one prediction: enough to see that the gateway in its image passes a request on."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = b'{"predictions": [42.0]}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    raise SystemExit(main())

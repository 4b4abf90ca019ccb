"""Build the images as their Dockerfiles say, start what was built, score, and stop it: `python -m tests.images [IMAGE]...`

Needs root, buildah and debootstrap; no daemon and no container registry. The base images are a minimal Debian 13 made by
debootstrap from the mirror that apt uses on this machine, passed by each Dockerfile's own build argument. Each image then runs as
process 1 in a process namespace of its own, as uid 10001, on a read-only root with a `/tmp`, as Cloud Run would run it.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = Path(os.environ.get("CHIPS_IMAGES_DIR", "/var/tmp/chips-images"))  # noqa: S108  (the bases, for the next time)
SUITE: Final = "trixie"
UID: Final = 10001
READY_S: Final = 120.0
STOP_S: Final = 30.0


class Image(NamedTuple):
    dockerfile: str
    context: str
    base_argument: str
    packages: str  # what its base has beyond Debian's minimum


IMAGES: Final = {
    "gateway": Image("deploy/gateway/Dockerfile", ".", "PYTHON", "python3 python3-venv"),
    "python": Image("backends/python/Dockerfile", "backends/python", "PYTHON", "python3 python3-venv"),
    "r": Image("backends/r/Dockerfile", "backends/r", "BASE", "python3 python3-venv"),
}


class Figures(NamedTuple):
    image: str
    build_s: float
    size_mb: float
    start_s: float
    outcome: str


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
            built = engine.build(name)
            figures.append(built._replace(**run(name, engine, work)))
    width = max(len(one.image) for one in figures)
    sys.stdout.write(f"{'IMAGE':{width}}  BUILD  SIZE     START   OUTCOME\n")
    for one in figures:
        sys.stdout.write(
            f"{one.image:{width}}  {one.build_s:4.0f} s  {one.size_mb:4.0f} MB  {one.start_s:4.1f} s  {one.outcome}\n"
        )
    return 0


class Engine:
    """buildah without a daemon: storage of its own below `work`, chroot isolation."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._bases: dict[str, str] = {}
        self._roots: dict[str, Path] = {}  # of what was built; a second container would copy all of it again
        self._volumes = _pip_volumes(work)

    def _buildah(self) -> list[str]:
        return [
            "buildah",
            "--storage-driver=vfs",
            f"--root={self._work / 'storage'}",
            f"--runroot={self._work / 'run'}",
        ]

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._buildah(), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if done.returncode:
            raise SystemExit(
                f"error: buildah {arguments[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done.stdout.strip()

    def build(self, name: str) -> Figures:
        image = IMAGES[name]
        base = self._base(image.packages)
        sys.stderr.write(f"building {name} from {image.dockerfile}\n")
        began = time.monotonic()
        self.call(
            "bud",
            "--isolation=chroot",
            "--layers=false",
            f"--timestamp={_commit_time()}",
            f"--build-arg={image.base_argument}={base}",
            f"--build-arg=REVISION={_revision()}",
            *(f"--volume={path}:{target}:ro" for path, target in self._volumes),
            f"--file={image.dockerfile}",
            f"--tag=localhost/chips-{name}",
            image.context,
        )
        build_s = time.monotonic() - began
        self._roots[name] = root = Path(self.call("mount", self.call("from", f"localhost/chips-{name}")))
        size = sum(
            path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink()
        )
        return Figures(name, build_s, size / 1e6, 0.0, "")

    def root(self, name: str) -> tuple[Path, dict[str, Any]]:
        """The files of an image that was built, and its configuration as the image format says it."""
        described = json.loads(self.call("inspect", "--type=image", f"localhost/chips-{name}"))
        return self._roots[name], described["OCIv1"]["config"]

    def _base(self, packages: str) -> str:
        if packages not in self._bases:
            tar = _debian(packages)
            container = self.call("from", "scratch")
            self.call("add", container, str(tar), "/")
            self.call("config", "--env=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
            name = f"localhost/chips-base-{len(self._bases)}"
            self.call("commit", "--rm", container, name)
            self._bases[packages] = name
        return self._bases[packages]


def _debian(packages: str) -> Path:
    """A minimal Debian as a tar file, made once."""
    key = "-".join([SUITE, *packages.split()])
    tar = KEPT / f"{key}.tar"
    if tar.exists():
        return tar
    KEPT.mkdir(parents=True, exist_ok=True)
    mirror = _mirror()
    with tempfile.TemporaryDirectory(dir=KEPT, prefix="making-") as folder:
        root = Path(folder) / "root"
        log = Path(folder) / "log"
        sys.stderr.write(f"making a minimal Debian {SUITE} with {packages}\n")
        with log.open("w") as out:
            made = subprocess.run(
                [
                    "debootstrap",
                    "--variant=minbase",
                    f"--include={','.join(packages.split())}",
                    SUITE,
                    root,
                    mirror,
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if made.returncode:
            raise SystemExit("error: debootstrap failed:\n" + log.read_text()[-4000:])
        (root / "usr/bin/python").symlink_to("python3")
        for path in (root / "var/cache/apt/archives").glob("*.deb"):
            path.unlink()
        draft = tar.with_suffix(".draft")
        subprocess.run(["tar", "--create", f"--file={draft}", f"--directory={root}", "."], check=True)
        draft.rename(tar)
    return tar


def _mirror() -> str:
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Origin: Debian",
            "Label: Debian",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not listed:
        raise SystemExit("error: apt on this machine knows no Debian mirror; run: apt-get update")
    return sorted(listed)[0]


def _pip_volumes(work: Path) -> list[tuple[str, str]]:
    """How pip reaches its index on this machine, for the build alone: nothing of it gets into an image."""
    configuration = work / "pip.conf"
    needed = subprocess.run(
        [sys.executable, "-m", "tests.bare.pip_settings", str(configuration)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    paths = [line.split(" ", 1)[1] for line in needed.splitlines()]
    return [(str(configuration), "/etc/pip.conf"), *((path, path) for path in paths)]


def _revision() -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def _commit_time() -> str:
    return subprocess.run(
        ["git", "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


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
    process = subprocess.Popen(
        [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *environment,
            "chroot", f"--userspec={UID}:{UID}", str(root), "sh", "-c", 'cd "$0" && exec "$@"', folder, *command,
        ],
        stdout=(shared / "out.log").open("w"),
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
    port = free_port()
    settings = ("--registry=sqlite:///data/registry.db", "--trace.store=off", "--server.host=127.0.0.1")
    with scripted_backend() as backend:
        began = time.monotonic()
        with started(root, config, port, shared, *settings):
            wait_for(f"http://127.0.0.1:{port}/-/ready", shared)
            start_s = time.monotonic() - began
            _chips(shared, "register", "wine", backend, "--version=1", "--no-probe", "--access=public", "--owner=images",
                   f"--gateway=http://127.0.0.1:{port}")  # fmt: skip
            answer = post(f"http://127.0.0.1:{port}/wine", {"instances": [[1.0]]})
            expect(answer, {"predictions": [42.0]})
    return {"start_s": start_s, "outcome": "started, registered, scored, SIGTERM, exit 0"}


def run_python(root: Path, config: dict[str, Any], shared: Path) -> dict[str, Any]:
    _python(shared, "examples/wine/train.py", str(shared / "trained"))
    _chips(shared, "publish", str(shared / "trained/model.joblib"), "--model=wine", "--version=1", f"--store={shared / 'artifacts'}",
           f"--signature={shared / 'trained/signature.json'}", f"--samples={shared / 'trained/samples.json'}", "--by=images")  # fmt: skip
    return _score_samples(root, config, shared, "wine")


def run_r(root: Path, config: dict[str, Any], shared: Path) -> dict[str, Any]:
    if shutil.which("Rscript") is None:
        raise SystemExit("error: Rscript is missing, which trains the example: apt install r-base-core")
    example = ROOT / "backends/r/examples/co2"
    subprocess.run(["Rscript", "--vanilla", "train.R", str(shared / "trained")], check=True, cwd=example,
                   capture_output=True)  # fmt: skip
    trained = next((shared / "trained").glob("*.rds"))
    _chips(shared, "publish", str(trained), "--model=co2", "--version=1", f"--store={shared / 'artifacts'}",
           f"--signature={shared / 'trained/signature.json'}", f"--samples={shared / 'trained/samples.json'}", "--by=images")  # fmt: skip
    return _score_samples(root, config, shared, "co2")


def _score_samples(root: Path, config: dict[str, Any], shared: Path, model: str) -> dict[str, Any]:
    _open_to_all(shared)
    port = free_port()
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
    return {"start_s": start_s, "outcome": f"started, {len(samples)} samples scored, SIGTERM, exit 0"}


RUNS: Final = {"gateway": run_gateway, "python": run_python, "r": run_r}


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _chips(shared: Path, *arguments: str) -> None:
    _python(shared, "-m", "gateway.cli", *arguments)
    for path in shared.iterdir():  # the gateway in the image reads and writes it as uid 10001
        os.chown(path, UID, UID)


def _python(shared: Path, *arguments: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(shared / "home"),
        "CHIPS_REGISTRY": f"sqlite:///{shared / 'registry.db'}",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def wait_for(url: str, shared: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"error: {url} is not ready after {READY_S:.0f} s: {error}\n{(shared / 'out.log').read_text()[-3000:]}"
                ) from None
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

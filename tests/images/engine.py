"""Builds images without a container engine's daemon: a Debian base, its packages, and the Dockerfile's steps."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]


KEPT: Final = Path(os.environ.get("CHIPS_IMAGES_DIR", "/var/tmp/chips-images"))  # noqa: S108  (the bases, for the next time)


SUITE: Final = "trixie"


class Image(NamedTuple):
    dockerfile: str  # in the context
    base_argument: str
    packages: str  # what its base has beyond Debian's minimum


class Figures(NamedTuple):
    image: str
    build_s: float
    size_mb: float
    start_s: float
    outcome: str


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

    def build(self, name: str, context: Path) -> Figures:
        """Build an image from a folder that has its Dockerfile and all that it copies."""
        image = IMAGES[name]
        base = self._base(image.packages)
        sys.stderr.write(f"building {name} from {context / image.dockerfile}\n")
        began = time.monotonic()
        self.call(
            "bud",
            "--isolation=chroot",
            "--layers=false",
            f"--timestamp={_commit_time()}",
            f"--build-arg={image.base_argument}={base}",
            f"--build-arg=REVISION={_revision()}",
            *(f"--volume={path}:{target}:ro" for path, target in self._volumes),
            f"--file={context / image.dockerfile}",
            f"--tag=localhost/chips-{name}",
            str(context),
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
            tar = debian(packages)
            container = self.call("from", "scratch")
            self.call("add", container, str(tar), "/")
            self.call("config", "--env=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
            name = f"localhost/chips-base-{len(self._bases)}"
            self.call("commit", "--rm", container, name)
            self._bases[packages] = name
        return self._bases[packages]


def debian(packages: str) -> Path:
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


IMAGES: Final = {
    "gateway": Image("deploy/gateway/Dockerfile", "PYTHON", "python3 python3-venv"),
    "python": Image("Dockerfile", "PYTHON", "python3 python3-venv"),
    "r": Image("Dockerfile", "BASE", "python3 python3-venv"),
}

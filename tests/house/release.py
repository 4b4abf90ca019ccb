"""Build what is released into a folder: `python -m tests.house.release [dist]`, which `make release` calls.

Wheels of the gateway and the Python backend, whose bytes depend on the sources alone (times are those of the commit); for each, a
requirements file with the digest of everything that pip will install, and a CycloneDX list of components; and SHA256SUMS.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Project(NamedTuple):
    name: str
    folder: Path
    lock: Path


PROJECTS = (
    Project("chips-gateway", ROOT, ROOT / "deploy/gateway/requirements.lock"),
    Project("chips-backend", ROOT / "backends/python", ROOT / "backends/python/requirements.lock"),
)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for project in PROJECTS:
        wheel = build_wheel(project, out)
        requirements = out / f"{project.name}.requirements.txt"
        requirements.write_text(pinned(project, wheel), encoding="utf-8")
        components = out / f"{project.name}.cdx.json"
        list_components(project, components)
        made += [wheel, requirements, components]
    sums = [f"{digest(path)}  {path.name}\n" for path in sorted(made)]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    sys.stdout.writelines(f"wrote {out / line.split()[1]}\n" for line in sums)


def build_wheel(project: Project, out: Path) -> Path:
    """The wheel; the same bytes for the same commit."""
    committed = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    stem = project.name.replace("-", "_")
    for older in out.glob(f"{stem}-*.whl"):
        older.unlink()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out.resolve())],
        cwd=project.folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": committed},
        capture_output=True,
        check=True,
    )
    (wheel,) = out.glob(f"{stem}-*.whl")
    return wheel


def pinned(project: Project, wheel: Path) -> str:
    """For `pip install --require-hashes --find-links .`: the lock, and the wheel itself."""
    version = wheel.name.split("-")[1]
    lock = project.lock.read_text(encoding="utf-8")
    return f"{project.name}=={version} \\\n    --hash=sha256:{digest(wheel)}\n{lock}"


def list_components(project: Project, target: Path) -> None:
    """A software bill of materials (CycloneDX 1.6, JSON) of what the lock names, with digests."""
    subprocess.run(
        [
            sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--of", "JSON",
            "--pyproject", str(project.folder / "pyproject.toml"), "-o", str(target), str(project.lock),
        ],
        capture_output=True,
        check=True,
    )  # fmt: skip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))

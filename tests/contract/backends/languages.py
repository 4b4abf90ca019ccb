"""Code run in R and in Julia, with their backend's functions at hand."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.contract.backends.process import ROOT

R_PACKAGES = "plumber jsonlite curl openssl filelock"
JULIA_LINEAR = str(Path(__file__).with_name("julia") / "linear.jl")
JULIA_BACKEND = ROOT / "backends/julia"


def run_r(code: str, *arguments: str) -> str:
    sources = f'for (f in sort(Sys.glob("{ROOT}/backends/r/R/*.R"))) source(f)'
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", sources, "-e", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Julia(NamedTuple):
    """A Julia, and a project in which ChipsBackend finds Genie and its other packages."""

    program: str
    project: str
    depot: str  # where it keeps what it compiled, whatever HOME is in a test

    @property
    def environ(self) -> dict[str, str]:
        """What `bin/serve` and Julia itself read."""
        return {"JULIA": self.program, "JULIA_PROJECT": self.project, "JULIA_DEPOT_PATH": self.depot}

    def run(self, *arguments: str, **environ: str) -> str:
        done = subprocess.run(
            [self.program, "--startup-file=no", *arguments],
            cwd=JULIA_BACKEND,
            env={**os.environ, **self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def genie_manifests() -> list[Path]:
    """
    The Manifest.toml files to test with: those that GENIE_MANIFESTS names, divided by colons, or the backend's own.

    The suite uses the first; what depends on the release of Genie is tested with each.
    """
    named = os.environ.get("GENIE_MANIFESTS", "")
    found = [Path(name) for name in named.split(":") if name] or [JULIA_BACKEND / "Manifest.toml"]
    return [path for path in found if path.exists()]


def make_julia(
    program: str, manifest: Path, folder: Path, packages: Mapping[str, tuple[str, Path]] | None = None
) -> Julia:
    """
    Write a project to `folder` that has this checkout's ChipsBackend, with the packages of `manifest`.

    `packages` are more of them by name: UUID and path.
    """
    backend = tomllib.loads((JULIA_BACKEND / "Project.toml").read_text())
    depends = ", ".join(f'"{name}"' for name in sorted(backend["deps"]))
    more = packages or {}
    direct = {"ChipsBackend": backend["uuid"], "JLD2": backend["deps"]["JLD2"]}
    direct |= {name: uuid for name, (uuid, _) in more.items()}
    (folder / "Project.toml").write_text("[deps]\n" + _table(direct))
    (folder / "Manifest.toml").write_text(
        f"{manifest.read_text()}\n[[deps.ChipsBackend]]\ndeps = [{depends}]\n"
        f'path = "{JULIA_BACKEND}"\nuuid = "{backend["uuid"]}"\nversion = "{backend["version"]}"\n'
        f"[deps.ChipsBackend.weakdeps]\n{_table(backend['weakdeps'])}"
        f"[deps.ChipsBackend.extensions]\n{_table(backend['extensions'])}"
        + "".join(
            f'[[deps.{name}]]\npath = "{path}"\nuuid = "{uuid}"\nversion = "1.0.0"\n'
            for name, (uuid, path) in more.items()
        )
    )
    asked = [program, "--startup-file=no", "-e", 'print(join(DEPOT_PATH, ":"))']
    depot = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return Julia(program, str(folder), depot)


def _table(content: Mapping[str, str]) -> str:
    return "".join(f'{name} = "{value}"\n' for name, value in content.items())


def compile_julia() -> None:
    """Compile the packages of every manifest ahead, side by side: `python -m tests.contract.backends.languages`."""
    with tempfile.TemporaryDirectory() as name:
        running = []
        for at, manifest in enumerate(genie_manifests()):
            folder = Path(name) / str(at)
            folder.mkdir()
            julia = make_julia(os.environ.get("JULIA", "julia"), manifest, folder)
            command = [julia.program, "--startup-file=no", "-e", "import ChipsBackend"]
            running.append(subprocess.Popen(command, env={**os.environ, **julia.environ}))
        sys.exit(max([process.wait() for process in running], default=0))


if __name__ == "__main__":
    compile_julia()

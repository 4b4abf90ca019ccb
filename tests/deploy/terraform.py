"""Run the real terraform on a copy of deploy/terraform, with the stand-in provider and without any network."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.deploy.provider import Provider
from tests.patience import patience

SOURCE = Path("deploy").resolve()


class Ended(NamedTuple):
    code: int
    output: str


class Resource(NamedTuple):
    """One resource of a plan: `values` as planned, `unknown` what only Google will say."""

    address: str
    type: str
    values: dict[str, Any]


class Checkout:
    """A copy of deploy/ that a test may change."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        self.root = folder / "deploy"
        shutil.copytree(
            SOURCE, self.root, ignore=shutil.ignore_patterns(".terraform", "*.tfvars", "*.tfstate*")
        )
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHECKPOINT_DISABLE": "1",  # it asks for newer releases otherwise
            "TF_IN_AUTOMATION": "1",
            "TF_CLI_CONFIG_FILE": os.devnull,
            **provider.environ,
        }

    def run(self, folder: str, *arguments: str) -> Ended:
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.root / "terraform" / folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=patience(120),
            check=False,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def init(self, folder: str) -> None:
        ended = self.run(folder, "init", "-backend=false", "-no-color", "-input=false")
        assert ended.code == 0, ended.output

    def replace(self, path: str, old: str, new: str) -> None:
        """Plant a mistake."""
        file = self.root / "terraform" / path
        text = file.read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new, 1))

    def plan(self, environment: str, variables: Mapping[str, Any] | None = None) -> list[Resource]:
        """Plan an environment with its example variables; what it would make."""
        folder = f"envs/{environment}"
        # State is not kept in a test, so no bucket is needed for it.
        (self.root / "terraform" / folder / "override.tf").write_text(
            'terraform {\n  backend "local" {}\n}\n'
        )
        self.init_local(folder)
        given = [
            f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in (variables or {}).items()
        ]
        ended = self.run(
            folder,
            "plan",
            "-no-color",
            "-input=false",
            "-var-file=terraform.tfvars.example",
            "-out=plan",
            *given,
        )
        assert ended.code == 0, ended.output
        shown = self.run(folder, "show", "-json", "plan")
        assert shown.code == 0, shown.output
        return list(_resources(json.loads(shown.output)["planned_values"]["root_module"]))

    def init_local(self, folder: str) -> None:
        ended = self.run(folder, "init", "-no-color", "-input=false")
        assert ended.code == 0, ended.output


def _resources(module: dict[str, Any]) -> Iterator[Resource]:
    for found in module.get("resources", ()):
        yield Resource(found["address"], found["type"], found["values"])
    for child in module.get("child_modules", ()):
        yield from _resources(child)

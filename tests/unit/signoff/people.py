"""People with SSH keys, made by ssh-keygen as people make them."""

import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from tests.conftest import require

POLICY = """
evidence = [{evidence}]
approvals = {{ {approvals} }}
valid_days = 14
{people}
[emergency]
people = ["cy@example.com"]
review_days = 3
"""


def require_ssh() -> None:
    require(
        "ssh-keygen",
        available=shutil.which("ssh-keygen") is not None,
        why="ssh-keygen is not installed (apt install openssh-client)",
    )


class People:
    """ana may request, bea and dan approve, cy approves and may act alone, eve is nobody."""

    roles: ClassVar = {"ana": "registrar", "bea": "approver", "dan": "approver", "cy": "approver", "eve": ""}

    def __init__(self, folder: Path) -> None:
        require_ssh()
        self.folder = folder
        for name in self.roles:
            self.make_key(name)

    def make_key(self, name: str, kind: str = "ed25519") -> Path:
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def key(self, name: str) -> str:
        return str(self.folder / name)

    def public(self, name: str) -> str:
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def policy(self, *, approvals: str = "approver = 2", evidence: str = "", more: str = "") -> str:
        people = "".join(
            f'[[people]]\nname = "{name}@example.com"\nroles = ["{role}"]\nssh_keys = ["{self.public(name)}"]\n'
            for name, role in self.roles.items()
            if role
        )
        return POLICY.format(people=people + more, approvals=approvals, evidence=evidence)

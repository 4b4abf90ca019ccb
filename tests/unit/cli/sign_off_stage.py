"""Two environments for the tests of sign-off and promotion: qa, where wine@4 is, and prod, which wants two approvals."""

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway.registry.base import MODELS, Delete, Document, Put
from gateway.registry.sqlite import SqliteRegistry
from tests.unit.cli.shell import Ended, Shell
from tests.unit.signoff.people import People

ARTIFACT = "sha256:" + "a" * 64
IMAGE = "eu.pkg.dev/p/wine@sha256:" + "b" * 64


class Stage:
    """Two environments: qa, where wine@4 is, and prod, which wants two approvals."""

    def __init__(self, shell: Shell, folder: Path, people: People) -> None:
        self.shell, self.folder, self.people = shell, folder, people
        self.put("qa", MODELS, "wine", self.model())
        (folder / "sign-off.toml").write_text(people.policy())
        self.prod("sign-off", "set", "sign-off.toml")

    def model(self, **changes: Any) -> dict[str, Any]:
        backend = {"version": "4", "url": "http://qa", "artifact_digest": ARTIFACT, "image": IMAGE, **changes}
        return {"name": "wine", "backends": [backend], "traffic": {backend["version"]: 100}}

    def prod(self, *words: str) -> Ended:
        return self.shell.ok("--env", "prod", "--yes", *words)

    def refused(self, *words: str) -> Ended:
        ended = self.shell("--env", "prod", "--yes", *words)
        assert ended.code not in {0, 1}, ended
        return ended

    def request(self, *more: str, who: str = "ana") -> str:
        words = ("--from", "qa", "--to", "prod", "--ssh-key", self.people.key(who), "--json")
        identity: str = self.shell.ok("request-approval", *(more or ("wine@4",)), *words).json()["id"]
        return identity

    def approve(self, identity: str, *who: str) -> Ended:
        *_, ended = [self.prod("approve", identity, "--ssh-key", self.people.key(name)) for name in who]
        return ended

    def state(self, identity: str) -> dict[str, Any]:
        (found,) = self.prod("approvals", identity, "--json").json()
        return found  # type: ignore[no-any-return]

    def register(self, *more: str, ok: bool = True) -> Ended:
        """In prod, what was approved; `more` wins."""
        declared = self.folder / "declared.yaml"
        declared.write_text(json.dumps({"chips": 1, "models": {"wine": self.model(url="http://prod")}}))
        words = ("import", str(declared), "--yes", "--force", *more)
        return self.prod(*words) if ok else self.refused(*words)

    def put(self, env: str, kind: str, name: str, body: dict[str, Any] | None) -> None:
        """Write past the command line, as somebody with the database's rights does."""

        async def work() -> None:
            registry = SqliteRegistry(self.folder / f"{env}.db")
            known = await registry.read(kind, name)
            expected = known.revision if known is not None else 0
            change = (
                Delete(kind=kind, name=name, expected=expected)
                if body is None
                else Put(kind=kind, name=name, body=body, expected=expected)
            )
            await registry.write(change, author="mallory")
            await registry.close()

        asyncio.run(work())

    def read(self, env: str, kind: str, name: str) -> Document:
        async def work() -> Document | None:
            registry = SqliteRegistry(self.folder / f"{env}.db")
            found = await registry.read(kind, name)
            await registry.close()
            return found

        found = asyncio.run(work())
        assert found is not None
        return found

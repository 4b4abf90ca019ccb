"""The stage for the tests of sign-off and promotion."""

from pathlib import Path

import pytest

from tests.unit.cli.shell import Shell
from tests.unit.cli.sign_off_stage import Stage
from tests.unit.signoff.people import People


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture
def stage(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: People) -> Stage:
    environments = tmp_path / "environments.toml"
    environments.write_text(
        "".join(f'[{name}]\nregistry = "sqlite://{tmp_path}/{name}.db"\n' for name in ("qa", "prod"))
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(environments))
    monkeypatch.delenv("CHIPS_REGISTRY")
    return Stage(shell, tmp_path, people)

"""Named environments: chosen, told, and asked about before a write."""

from pathlib import Path

import pytest

from gateway.core.api_keys import is_well_formed
from tests.unit.cli.shell import Shell


@pytest.fixture
def environments(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two environments with a registry each; no other registry is named."""
    monkeypatch.delenv("CHIPS_REGISTRY")
    path = tmp_path / "environments.toml"
    path.write_text(
        f'[dev]\nregistry = "sqlite://{tmp_path}/dev.db"\nartifacts = "{tmp_path}/dev-artifacts"\n'
        f'[prod]\nregistry = "sqlite://{tmp_path}/prod.db"\nartifacts = "{tmp_path}/prod-artifacts"\n'
        'protected = true\nproject = "my-project"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(path))
    return path


def registered(shell: Shell, *before: str) -> list[str]:
    return [model["name"] for model in shell.ok(*before, "models", "--json").json()]


REGISTER = ("register", "wine", "http://127.0.0.1:9", "--no-probe", "--force", "--version", "1")


def test_each_environment_has_a_registry_of_its_own(shell: Shell, environments: Path):
    ended = shell.ok("--env", "dev", *REGISTER)
    assert "environment dev: sqlite://" in ended.err
    assert registered(shell, "--env", "dev") == ["wine"]
    assert registered(shell, "--env", "prod") == []


def test_the_one_in_use_stays_in_use(shell: Shell, environments: Path):
    shell.ok("env", "use", "dev")
    shell.ok(*REGISTER)
    assert registered(shell) == ["wine"]
    assert [e["name"] for e in shell.ok("env", "list", "--json").json() if e["in_use"]] == ["dev"]
    assert shell.ok("env", "show", "--json").json()["chosen_by"] == "chips env use"
    shell.ok("env", "use")
    assert shell("env", "show").code == 78


def test_what_names_a_registry_itself_wins_over_the_one_in_use(
    shell: Shell, environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shell.ok("--env", "dev", *REGISTER)
    shell.ok("env", "use", "dev")
    monkeypatch.setenv("CHIPS_REGISTRY", f"sqlite://{tmp_path}/other.db")
    assert registered(shell) == []
    assert registered(shell, "--env", "dev") == ["wine"]
    monkeypatch.setenv("CHIPS_ENV", "dev")
    assert registered(shell) == ["wine"]
    other = shell.ok("--env", "dev", "models", "--registry", f"sqlite://{tmp_path}/other.db", "--json")
    assert other.json() == []


def test_a_protected_environment_is_not_written_without_a_yes(
    shell: Shell, environments: Path, tmp_path: Path
):
    for arguments in (REGISTER, ("keys", "create", "ci")):
        ended = shell("--env", "prod", *arguments)
        assert ended.code == 64
        assert "protected" in ended.err
        assert "--yes" in ended.err
        assert not is_well_formed(ended.out.strip())
    assert registered(shell, "--env", "prod") == []
    shell.ok("--env", "prod", "--yes", *REGISTER)
    assert registered(shell, "--env", "prod") == ["wine"]
    assert shell("--env", "prod", "deregister", "wine").code == 64
    shell.ok("--env", "prod", "deregister", "wine", "--yes")


def test_publishing_to_a_protected_environment_asks_too(shell: Shell, environments: Path, tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    arguments = ("publish", str(model), "--model", "wine", "--version", "1", "--no-try")
    assert shell("--env", "prod", *arguments).code == 64
    assert not (tmp_path / "prod-artifacts").exists()
    shell.ok("--env", "prod", *arguments, "--store", str(tmp_path / "elsewhere"))
    shell.ok("--env", "dev", *arguments)
    assert (tmp_path / "dev-artifacts/wine/1/manifest.json").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[dev]\nregistri = "x"\n', "did you mean registry?"),
        ("[dev\n", "not valid TOML"),
        ("[dev]\nprotected = 1\n", "bool"),
        ('dev = "x"\n', "object"),
    ],
)
def test_a_file_that_is_wrong_is_told(shell: Shell, environments: Path, content: str, told: str):
    environments.write_text(content)
    for arguments in (("env", "list"), ("--env", "dev", "models")):
        ended = shell(*arguments)
        assert ended.code == 78
        assert told in ended.err


def test_a_name_that_is_wrong_is_told(shell: Shell, environments: Path):
    assert "did you mean prod?" in shell("--env", "prd", "models").err
    ended = shell("env", "use", "staging")
    assert ended.code == 78
    assert "known are dev, prod" in ended.err
    environments.unlink()
    assert "does not exist yet" in shell("--env", "dev", "models").err
    assert "which may begin" in shell.ok("env", "list").out


def test_a_pointer_to_an_environment_that_is_gone_does_not_act_on_another(shell: Shell, environments: Path):
    shell.ok("env", "use", "dev")
    environments.write_text('[prod]\nregistry = "memory://"\n')
    assert shell("models").code == 78
    shell.ok("env", "use")
    shell.ok("models")

"""The plug-in of docs/how-to/registry-plugin.md, installed from the page and held to the whole contract."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.registry.base import Registry
from gateway.registry.open_by_url import open_registry
from gateway.testing import RegistryContractTests
from tests.patience import patience

_PAGE = Path(__file__).parents[3] / "docs/how-to/registry-plugin.md"


def install(site: Path) -> None:
    """What pip would do with the page's two files: the module, and the metadata that names its entry point."""
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL))
    project = tomllib.loads(blocks["toml"])["project"]
    (site / "chips_json.py").write_text(blocks["python"])
    metadata = site / f"chips_json-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (group,) = project["entry-points"]
    lines = [f"{scheme} = {target}" for scheme, target in project["entry-points"][group].items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(site)
    return site


class TestPlugIn(RegistryContractTests):
    @pytest.fixture
    def open_client(
        self, tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], Registry]:
        monkeypatch.syspath_prepend(str(site))
        return lambda: open_registry(f"json://{tmp_path}/registry.json")


def test_the_command_line_takes_it(tmp_path: Path, site: Path):
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{Path.cwd()}",
        "CHIPS_REGISTRY": f"json://{tmp_path}/registry.json",
        "CHIPS_SERVER__PORT": "9",
    }

    def chips(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=patience(50),
            check=False,
        )

    registered = chips("register", "wine", "http://127.0.0.1:9", "--no-probe", "--force", "--version", "1")
    assert registered.returncode == 0, registered.stderr
    assert '"name": "wine"' in chips("models", "--json").stdout
    assert "created   models/wine revision 1" in chips("history").stdout


def test_a_scheme_that_is_not_installed_is_told_with_those_that_are(
    site: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(ValueError, match="did you mean json"):
        open_registry("jsn:///x.json")
    with pytest.raises(ValueError, match="json:///absolute/path"):
        open_registry("json:///x.yaml")

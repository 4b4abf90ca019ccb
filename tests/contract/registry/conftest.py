import pytest

from tests.patience import patience
from tests.unit.signoff.people import People


@pytest.fixture(autouse=True)
def watch_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.testing.registry_contract._PATIENCE_S", patience(30.0))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Made once: keys are read, never changed."""
    return People(tmp_path_factory.mktemp("people"))

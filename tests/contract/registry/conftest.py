import pytest

from tests.patience import patience


@pytest.fixture(autouse=True)
def watch_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.testing.registry_contract._PATIENCE_S", patience(30.0))

"""The fixtures `firestore` (one emulator for the whole run, a project of its own for each test) and `own_emulator`."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from tests.conftest import require
from tests.firestore.emulator import Emulator, why_missing


@pytest.fixture(scope="session")
def firestore_emulator() -> Iterator[Emulator]:
    require("firestore", available=not why_missing(), why=why_missing())
    with running_emulator() as emulator:
        yield emulator


@contextmanager
def running_emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    try:
        emulator.start()
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture
def firestore(firestore_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a registry that nobody else uses."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    be_patient(monkeypatch)
    return registry_url(firestore_emulator)


@pytest.fixture
def own_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that the test may kill."""
    be_patient(monkeypatch)
    require("firestore", available=not why_missing(), why=why_missing())
    with running_emulator() as emulator:
        yield emulator


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is no fault of Firestore's."""
    for name in ("_READ_S", "_QUERY_S", "_COMMIT_S"):
        monkeypatch.setattr(f"gateway.registry.firestore.rpc.{name}", 50.0)


def registry_url(emulator: Emulator) -> str:
    return f"firestore://test-{uuid4().hex[:12]}?emulator={emulator.host}"

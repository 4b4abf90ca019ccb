"""Every registry passes the same suite."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.registry.base import Registry
from gateway.registry.memory import MemoryRegistry, SharedStore
from gateway.registry.open_by_url import open_registry
from gateway.testing import RegistryContractTests


class TestMemory(RegistryContractTests):
    @pytest.fixture
    def open_client(self) -> Callable[[], Registry]:
        store = SharedStore()
        return lambda: MemoryRegistry(store)


class TestSqlite(RegistryContractTests):
    @pytest.fixture
    def open_client(self, tmp_path: Path) -> Callable[[], Registry]:
        return lambda: open_registry(f"sqlite://{tmp_path}/new/folder/registry.db")


class TestFirestore(RegistryContractTests):
    @pytest.fixture
    def open_client(self, firestore: str) -> Callable[[], Registry]:
        return lambda: open_registry(firestore)

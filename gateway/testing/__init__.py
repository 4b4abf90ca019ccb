"""Public test suites for authors of registry plug-ins and of backends.

Subclass `RegistryContractTests` in a pytest module and give it a fixture `open_client`, a function that opens another client
of the same, initially empty store each time it is called:

    class TestMyRegistry(RegistryContractTests):
        @pytest.fixture
        def open_client(self):
            store = make_an_empty_store()
            return lambda: MyRegistry(store)

and `BackendContractTests` with a fixture `backend` that says how to start or reach yours:

    class TestMyBackend(BackendContractTests):
        @pytest.fixture(scope="class")
        @classmethod
        def backend(cls):
            return BackendUnderTest(command="Rscript serve.R", samples=Path("artifact/manifest.json"))
"""

from gateway.testing.backend_contract import BackendContractTests, BackendUnderTest
from gateway.testing.registry_contract import OpenClient, RegistryContractTests, put

__all__ = ["BackendContractTests", "BackendUnderTest", "OpenClient", "RegistryContractTests", "put"]

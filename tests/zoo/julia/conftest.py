"""The Julias of the backends' contract suite."""

from tests.contract.backends.conftest import julia, julias

__all__ = ["julia", "julias"]

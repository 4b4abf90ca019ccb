"""Serves one version of one model, as backends/CONTRACT.md says; and `save`, which writes a trained model for it.

The file to edit for a model of your own kind is predict.py.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CannotSave", "Saved", "save"]

if TYPE_CHECKING:
    from chips_backend.saving import CannotSave, Saved, save


def __getattr__(name: str) -> Any:
    """`save` and its types, imported when they are first used: a backend that serves does not need them."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("chips_backend.saving"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

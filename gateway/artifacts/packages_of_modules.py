"""Find the installed Python packages that modules come from."""

from collections.abc import Collection
from importlib import metadata
from typing import Final

# How the line of a package's module goes on in RECORD (PEP 376): a folder, a source, or a compiled module.
_ENDINGS: Final = ("/", ".py,", ".cpython-", ".abi3.so,", ".so,", ".cp", ".pyd,")


def packages_by_module(modules: Collection[str]) -> dict[str, str]:
    """The installed package that each module comes from. Modules are top-level ones, by name.

    The package is the one that `importlib.metadata.packages_distributions` names first. That function makes a path of each file
    of each package that is installed, which takes about a second where there are some two hundred. Modules that no
    package holds are left out.
    """
    found: dict[str, str] = {}
    for package in metadata.distributions():
        declared = (package.read_text("top_level.txt") or "").split()
        record = "" if declared else "\n" + (package.read_text("RECORD") or "")
        for module in modules:
            if module not in found and (
                module in declared or any(f"\n{module}{ending}" in record for ending in _ENDINGS)
            ):
                found[module] = package.metadata["Name"]
    return found

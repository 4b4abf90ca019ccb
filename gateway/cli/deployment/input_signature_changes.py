"""Compare the input signature of a new version with that of the version in use.

This happens before the new version gets traffic.
"""

from collections.abc import Sequence
from typing import Any

from gateway.cli.support import console
from gateway.registry.base import MODELS
from gateway.settings import Settings


async def input_signature_changes(settings: Settings, name: str, version: str) -> str:
    """How the inputs of a new version differ from those of the version in use.

    The new one is the registered `version`; the one in use has the most traffic. Empty where they do not differ.

    Empty too where either says nothing of its inputs, or no other version takes traffic.
    """
    async with console.open_guarded_registry(settings) as registry:
        document = await registry.read(MODELS, name)
    if document is None:
        return ""
    model = console.read_model(document)
    others = {other: share for other, share in model.traffic.items() if share and other != version}
    mine = model.backend(version)
    theirs = model.backend(max(others, key=lambda other: others[other])) if others else None
    if mine is None or theirs is None or not mine.inputs or not theirs.inputs:
        return ""
    differences = _differences(theirs.inputs, mine.inputs)
    if not differences:
        return ""
    return f"{'; '.join(differences)}: requests that version {theirs.version} takes may get 422 from version {version}"


def _differences(before: Sequence[Any], after: Sequence[Any]) -> list[str]:
    old = {tensor.name: tensor.datatype for tensor in before}
    new = {tensor.name: tensor.datatype for tensor in after}
    found = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("inputs that are gone", [name for name in old if name not in new]),
            ("new inputs", [name for name in new if name not in old]),
            (
                "inputs of another datatype",
                [
                    f"{name} ({old[name]} → {new[name]})"
                    for name in new
                    if old.get(name, new[name]) != new[name]
                ],
            ),
        )
        if names
    ]
    if not found and list(old) != list(new):
        return ["the inputs have another order, which matters to rows that are arrays"]
    return found

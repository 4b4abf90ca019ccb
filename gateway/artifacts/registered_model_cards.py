"""Reads the model cards of a model's versions from the registry. The registry keeps them as evidence."""

import msgspec

from gateway.artifacts.read_model_card import CardSection, read_card_sections
from gateway.core.model import Model
from gateway.core.version_evidence import CARD, why_evidence_does_not_apply
from gateway.registry.base import Registry
from gateway.registry.evidence_records import read_evidence


class RegisteredCard(msgspec.Struct, frozen=True, kw_only=True):
    """The model card of one registered version. It says why it does not count for what is registered now, if so."""

    version: str
    passed: bool  # everything is written
    summary: str
    why_not: str  # why it says nothing about this version; empty where it counts
    sections: tuple[CardSection, ...]


async def read_registered_cards(registry: Registry, model: Model | None) -> list[RegisteredCard]:
    """Read the model cards of the registered versions.

    Only versions that have one are in the list, in the model's order. Raises RegistryError.
    """
    found = []
    if model is None:
        return []
    for backend in model.backends:
        record = await read_evidence(registry, model.name, backend.version, CARD)
        if record is not None:
            found.append(
                RegisteredCard(
                    version=backend.version,
                    passed=record.passed,
                    summary=record.summary,
                    why_not=why_evidence_does_not_apply(record, backend),
                    sections=read_card_sections(record.facts),
                )
            )
    return found

"""Read the model cards of a model's versions from the registry, which keeps them as evidence."""

import msgspec

from gateway.artifacts.model_card_sections import CardSection, read_card_sections
from gateway.core.model import Model
from gateway.core.version_evidence import CARD, why_evidence_does_not_apply
from gateway.registry.base import Registry
from gateway.registry.evidence_records import read_evidence


class RegisteredCard(msgspec.Struct, frozen=True, kw_only=True):
    """The model card of one registered version.

    `why_not_applicable` says why it does not count for what is registered now. The console and `chips show` get it as JSON.
    """

    version: str
    complete: bool = msgspec.field(name="passed")  # everything is written
    summary: str
    why_not_applicable: str = msgspec.field(name="why_not")  # empty where it counts
    sections: tuple[CardSection, ...]


async def read_registered_cards(registry: Registry, model: Model) -> list[RegisteredCard]:
    """Read the model cards of the registered versions.

    Only versions that have one are in the list, in the model's order. Raises RegistryError.
    """
    found = []
    for backend in model.backends:
        record = await read_evidence(registry, model.name, backend.version, CARD)
        if record is not None:
            found.append(
                RegisteredCard(
                    version=backend.version,
                    complete=record.passed,
                    summary=record.summary,
                    why_not_applicable=why_evidence_does_not_apply(record, backend),
                    sections=read_card_sections(record.facts),
                )
            )
    return found

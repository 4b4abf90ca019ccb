"""An immutable snapshot of the registry, compiled for routing. It is indexed by model name."""

import copy
import logging
from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Any, TypeVar

from gateway.core.budget import Budget, parse_budget
from gateway.core.compiled_model_policy import compile_policy
from gateway.core.compiled_sticky_shares import compile_sticky
from gateway.core.ip_network_set import NetworkSet, parse_network
from gateway.core.model import Backend, Model, parse_model
from gateway.core.prices import Prices, parse_prices
from gateway.core.rollout_document import Rollout, parse_rollout
from gateway.core.shadow_document import Shadow, parse_shadow
from gateway.registry.base import (
    BUDGETS,
    EMERGENCIES,
    MODELS,
    NETWORKS,
    PRICES,
    REVOCATIONS,
    ROLLOUTS,
    SHADOWS,
    Document,
    MirroredListing,
)

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
_NOBODY = NetworkSet()
_AT_ONCE = 200  # documents that are only taken over, before a pause: 0.1 ms


class ModelEntry:
    """A model compiled for routing."""

    __slots__ = (
        "_backends",
        "_by_version",
        "_only",
        "_shares",
        "assigned",
        "compiled_policy",
        "model",
        "revision",
        "sticky",
    )

    def __init__(self, model: Model, revision: int) -> None:
        self.model = model
        self.compiled_policy = compile_policy(model.policy)
        self.revision = revision
        self._by_version = {backend.version: backend for backend in model.backends}
        shared = [
            (self._by_version[version], percent) for version, percent in model.traffic.items() if percent
        ]
        self._backends = [backend for backend, _ in shared]
        self._shares = list(accumulate(percent for _, percent in shared))
        self._only = self._backends[0] if len(self._backends) == 1 else None
        self.assigned = (
            "" if self._only is not None else "weight"
        )  # why a version is chosen that nobody names
        self.sticky = compile_sticky(model)

    def choose_backend(self, version: str | None, draw: Callable[[], float]) -> Backend | None:
        """The backend for one request: of `version` if given, else by traffic share. `draw` returns a number in [0, 1)."""
        if version is not None:
            return self._by_version.get(version)
        if self._only is not None:
            return self._only
        if not self._backends:
            return None
        return self._backends[bisect_right(self._shares, draw() * self._shares[-1])]


class Snapshot:
    """An immutable snapshot of the registry at one generation. It has everything the data plane needs."""

    __slots__ = (
        "budgets",
        "emergencies",
        "entries",
        "generation",
        "network_revisions",
        "networks",
        "price_tables",
        "problems",
        "registry_id",
        "revoked",
        "rollout_revisions",
        "rollouts",
        "shadows",
        "via_name",
    )

    def __init__(  # noqa: PLR0913  (one for each kind of document)
        self,
        registry_id: str,
        generation: int,
        entries: Mapping[str, ModelEntry],
        revoked: frozenset[str],
        problems: tuple[str, ...],
        networks: NetworkSet = _NOBODY,
        network_revisions: tuple[tuple[str, int], ...] = (),
        rollouts: Mapping[str, Rollout] = MappingProxyType({}),
        rollout_revisions: tuple[tuple[str, int], ...] = (),
        *,
        shadows: Mapping[str, Shadow] = MappingProxyType({}),
        emergencies: tuple[str, ...] = (),
        budgets: tuple[Budget, ...] = (),
        price_tables: tuple[Prices, ...] = (),
    ) -> None:
        self.registry_id = registry_id
        self.via_name = (
            f"chips-{registry_id[:12].lower()}"  # what gateways with this registry call themselves
        )
        self.generation = generation
        self.entries = entries
        self.revoked = revoked  # digests of API keys
        self.problems = problems  # documents that could not be read, and why
        self.networks = networks  # whose callers are admitted, besides those of the settings
        self.network_revisions = network_revisions  # of the documents that `networks` was made from
        self.rollouts = rollouts  # by model, also those that have ended
        self.rollout_revisions = rollout_revisions
        self.shadows = shadows  # by model, also those that have ended
        self.budgets = budgets
        self.price_tables = price_tables  # that were written to the registry
        self.emergencies = emergencies  # what serves without approval and is not reviewed yet, a line each

    def with_revocations(self, listing: MirroredListing) -> "Snapshot":
        """A copy of this snapshot with the revocations of a newer listing.

        The keys that `listing` revokes are revoked in it, too.
        """
        more = {document.name for document in listing.documents if document.kind == REVOCATIONS}
        found = copy.copy(self)
        found.revoked = self.revoked | more
        return found


def compile_snapshot(listing: MirroredListing, previous: Snapshot | None = None) -> Snapshot:
    """Compile a registry listing into a snapshot. It is done at once; `compile_with_pauses` does it with pauses."""
    steps = compile_with_pauses(listing, previous)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            snapshot: Snapshot = done.value
            return snapshot


def compile_with_pauses(
    listing: MirroredListing, previous: Snapshot | None
) -> Generator[None, None, Snapshot]:
    """Compile a registry listing into a snapshot, with pauses.

    They are for the caller's other work. There is a pause after each document that is new, and now and then. Entries of
    `previous` are taken over where the document is still the same.

    A document that cannot be read is listed in `problems`; where an earlier revision of it was good, that stays in
    service: a typing mistake must not take a model away from its callers.
    """
    if previous is not None and previous.registry_id != listing.registry_id:
        previous = None  # the revisions of another registry say nothing about this one's documents
    known: Mapping[str, ModelEntry] = {} if previous is None else previous.entries
    entries: dict[str, ModelEntry] = {}
    revoked = set()
    problems: list[str] = []
    others: dict[str, list[Document]] = {
        kind: [] for kind in (NETWORKS, ROLLOUTS, SHADOWS, EMERGENCIES, BUDGETS, PRICES)
    }
    for number, document in enumerate(listing.documents):
        kind, name = document.kind, document.name
        if not number % _AT_ONCE:
            yield
        if kind == MODELS:
            entry = known.get(name)
            if entry is None or entry.revision != document.revision:
                yield
                try:
                    entry = compile_entry(document)
                except ValueError as error:
                    problems.append(f"models/{name} revision {document.revision}: {error}")
            if entry is not None:
                entries[name] = entry
        elif kind == REVOCATIONS:
            revoked.add(name)
        elif kind in others:
            others[kind].append(document)
    network_set, revisions = yield from _networks(others[NETWORKS], previous, problems)
    return Snapshot(
        listing.registry_id,
        listing.generation,
        MappingProxyType(entries),
        frozenset(revoked),
        tuple(problems),
        network_set,
        revisions,
        *_rollouts(others[ROLLOUTS], previous, problems),
        shadows=_shadows(others[SHADOWS], problems),
        emergencies=_emergencies(others[EMERGENCIES], previous),
        budgets=_readable(others[BUDGETS], read_budget, problems),
        price_tables=_readable(others[PRICES], read_price_table, problems),
    )


def _readable(
    documents: list[Document], read: Callable[[Document], Result], problems: list[str]
) -> tuple[Result, ...]:
    """What can be read of `documents`."""
    found = []
    for document in documents:
        try:
            found.append(read(document))
        except ValueError as error:
            problems.append(f"{document.kind}/{document.name} revision {document.revision}: {error}")
    return tuple(found)


def _emergencies(documents: list[Document], previous: Snapshot | None) -> tuple[str, ...]:
    """A line for each: what serves on one person's word, and until when that must be reviewed. New ones are logged.

    Whose word it is stands in the registry: names of people are not for logs.
    """
    lines = []
    for document in documents:
        title, at, due = (str(document.body.get(name, "?"))[:200] for name in ("title", "at", "review_due"))
        line = f"{title} serves on one person's word since {at}; review by {due}: chips approvals {document.name}"
        lines.append(line)
        if previous is None or line not in previous.emergencies:
            _log.critical("EMERGENCY: %s", line)
    return tuple(lines)


def _rollouts(
    documents: list[Document], previous: Snapshot | None, problems: list[str]
) -> tuple[Mapping[str, Rollout], tuple[tuple[str, int], ...]]:
    """The rollouts by model. One that cannot be read is none: it must not be acted on."""
    revisions = tuple((document.name, document.revision) for document in documents)
    if (
        previous is not None
        and previous.rollout_revisions == revisions
        and len(previous.rollouts) == len(revisions)
    ):
        return previous.rollouts, revisions
    found = {}
    for document in documents:
        try:
            found[document.name] = read_rollout(document)
        except ValueError as error:
            problems.append(f"rollouts/{document.name} revision {document.revision}: {error}")
    return MappingProxyType(found), revisions


def _shadows(documents: list[Document], problems: list[str]) -> Mapping[str, Shadow]:
    """The shadows by model. One that cannot be read is none."""
    found = {}
    for document in documents:
        try:
            found[document.name] = read_shadow(document)
        except ValueError as error:
            problems.append(f"shadows/{document.name} revision {document.revision}: {error}")
    return MappingProxyType(found)


def _networks(
    documents: list[Document], previous: Snapshot | None, problems: list[str]
) -> Generator[None, None, tuple[NetworkSet, tuple[tuple[str, int], ...]]]:
    """The set of admitted networks. One that cannot be read admits nobody."""
    revisions = tuple((document.name, document.revision) for document in documents)
    if previous is not None and previous.network_revisions == revisions and _all_read(previous):
        return previous.networks, revisions  # ten thousand of them are not recompiled for each new model
    found = []
    for document in documents:
        yield
        try:
            found.append(parse_network(str(document.body.get("network"))))
        except ValueError as error:
            problems.append(f"networks/{document.name} revision {document.revision}: {error}")
    return NetworkSet(found), revisions


def _all_read(snapshot: Snapshot) -> bool:
    return len(snapshot.networks) == len(snapshot.network_revisions)


def read_rollout(document: Document) -> Rollout:
    """Read a rollout from its document. ValueError says everything that is wrong with it."""
    rollout = parse_rollout(_readable_body(document))
    _check_name(document, rollout.model, "of ")
    return rollout


def read_shadow(document: Document) -> Shadow:
    """Read a shadow from its document. ValueError says everything that is wrong with it."""
    shadow = parse_shadow(_readable_body(document))
    _check_name(document, shadow.model, "of ")
    return shadow


def read_budget(document: Document) -> Budget:
    """Read a budget from its document. ValueError says everything that is wrong with it."""
    budget = parse_budget(_readable_body(document))
    _check_name(document, budget.id, "of ")
    return budget


def read_price_table(document: Document) -> Prices:
    """Read a price table from its document. ValueError says everything that is wrong with it."""
    prices = parse_prices(_readable_body(document))
    _check_name(document, prices.date, "of ")
    return prices


def compile_entry(document: Document) -> ModelEntry:
    """Compile a model's document for routing. ValueError says everything that is wrong with it."""
    model = parse_model(_readable_body(document))
    _check_name(document, model.name)
    return ModelEntry(model, document.revision)


def _readable_body(document: Document) -> dict[str, Any]:
    if document.problem:
        raise ValueError(document.problem)
    return document.body


def _check_name(document: Document, named: str, relation: str = "") -> None:
    if named != document.name:
        raise ValueError(f'it says that it is {relation}"{named}"')

"""Find the request's model, and choose one of its backends by version or traffic share."""

from gateway.core.errors import BadRequest, ModelNotFound, RegistryUnavailable
from gateway.core.exchange import Exchange
from gateway.core.header_classification import REPORT_REGISTRY, REQUEST_TIMEOUT
from gateway.core.per_process_random import random_share
from gateway.registry.base import RegistryError
from gateway.registry.mirror import Mirror
from gateway.registry.snapshot import ModelEntry, Snapshot

_MAX_TIMEOUT_DIGITS = 9


class RouteToBackend:
    """Find the request's model, and choose one of its backends by version or traffic share.

    A model that the present snapshot lacks is looked up in the registry, because it may have been registered a moment ago.
    Only that may wait.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def try_nowait(self, exchange: Exchange) -> bool:
        """Route without waiting; False where that is not possible.

        The snapshot must know the model. False: `await` the stage itself.
        """
        snapshot = self._mirror.snapshot
        entry = snapshot.entries.get(exchange.target.model) if snapshot is not None else None
        if snapshot is None or entry is None:
            return False
        self._choose(exchange, snapshot, entry)
        return True

    async def __call__(self, exchange: Exchange) -> None:
        if not self.try_nowait(exchange):
            self._choose(exchange, *await self._read_through(exchange.target.model))

    def _choose(self, exchange: Exchange, snapshot: Snapshot, entry: ModelEntry) -> None:
        target = exchange.target
        exchange.generation = snapshot.generation
        if exchange.head.read[REPORT_REGISTRY] == b"generation":
            exchange.registry_age_s = self._mirror.age_s
        model = entry.model
        if not model.enabled:
            raise ModelNotFound(f'The model "{model.name}" is disabled at present.')
        backend = entry.choose_backend(target.version, random_share)
        if backend is None:
            raise ModelNotFound(
                f'The model "{model.name}" has no version {target.version}.'
                if target.version is not None
                else f'The model "{model.name}" has no backend.'
            )
        exchange.model = model
        exchange.compiled_policy = entry.compiled_policy
        exchange.backend = backend
        exchange.assigned = entry.assigned if target.version is None else "pin"
        exchange.sticky = entry.sticky
        exchange.deadline = exchange.arrived + _time_allowed_s(
            exchange.head.read[REQUEST_TIMEOUT], model.policy.timeout_s
        )

    async def _read_through(self, name: str) -> tuple[Snapshot, ModelEntry]:
        snapshot = self._mirror.snapshot
        if snapshot is None:
            raise RegistryUnavailable("The gateway has not been able to read its registry yet.")
        try:
            entry = await self._mirror.read_missing_model(name)
        except RegistryError as error:
            # "There is none" would be a lie, and one that callers remember.
            raise RegistryUnavailable(
                f'The gateway cannot find out whether there is a model "{name[:80]}": the registry does not answer.'
            ) from error
        if entry is None:
            raise ModelNotFound(f'There is no model "{name[:80]}" here. GET / lists the models you may call.')
        return self._mirror.snapshot or snapshot, entry


def _time_allowed_s(asked: bytes | None, allowed_s: float) -> float:
    """The caller's X-Request-Timeout (milliseconds) or the model's own time-out, whichever is shorter."""
    if asked is None:
        return allowed_s
    if not asked.isdigit() or len(asked) > _MAX_TIMEOUT_DIGITS or not int(asked):
        raise BadRequest("X-Request-Timeout must be a whole number of milliseconds, at least 1.")
    return min(int(asked) / 1000, allowed_s)

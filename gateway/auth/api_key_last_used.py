"""Record in the registry when each API key was last used.

This happens in the background. Every write to a registry reaches all gateways and stays in its history, so a key's use is
written once an hour at most, for many keys in one write.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.registry.base import KEY_USES, Put, Registry, RegistryError
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

_log = logging.getLogger(__name__)

_INTERVAL_S = 600.0
_AGAIN_S = 3600.0
_AT_ONCE = 200
_STOP_S = 1.0


class LastUsedRecorder:
    """Writes the times of API keys' last use to the registry.

    It does so from time to time. The times are in `used`, by key digest: the authenticator fills that dictionary.
    """

    def __init__(
        self,
        registry: Registry,
        used: dict[str, float],
        *,
        now: Callable[[], float] = time.time,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._registry = registry
        self._used = used
        self._now = now
        self._written: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = self._supervisor.start_retrying_task("last use of keys", self._run)

    async def stop(self) -> None:
        """Stop, after one last write. The write may take a moment at most."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self.write_due()

    async def write_due(self) -> int:
        """Write the times that are due; return how many. A registry that is away is no error: it is tried again later."""
        now = self._now()
        self._written = {digest: at for digest, at in self._written.items() if now - at < _AGAIN_S}
        due = [digest for digest in self._used if digest not in self._written][:_AT_ONCE]
        if not due:
            self._used.clear()
            return 0
        try:
            changes = [await self._change(digest, self._used[digest]) for digest in due]
            await self._registry.write(*changes, author="gateway", reason="last use of keys")
        except RegistryError as error:  # also where another gateway was quicker
            _log.debug("the last use of %d keys was not written: %s", len(due), error)
            return 0
        for digest in due:
            self._written[digest] = now
            self._used.pop(digest, None)
        return len(due)

    async def _change(self, digest: str, at: float) -> Put:
        known = await self._registry.read(KEY_USES, digest)
        text = datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
        return Put(
            kind=KEY_USES, name=digest, body={"at": text}, expected=known.revision if known is not None else 0
        )

    async def _run(self, helper: HelperHealth) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                await self.write_due()
            except Exception as error:  # noqa: BLE001  (whatever a plug-in raises, the next round is another chance)
                helper.failed(error)
            else:
                helper.succeeded()

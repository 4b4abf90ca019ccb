"""Write anchors of the registry's history at intervals.

It runs in the background, and writes where the history's head has changed.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.audit.anchor_store import AnchorStore
from gateway.registry.base import Registry, RegistryError
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

_FIRST_S: Final = 5.0  # after a start, which has more urgent things to do


class PeriodicAnchoring:
    """Writes anchors of the registry's history at intervals.

    Every `every_s` seconds the signed head goes to `store`. `signing_key_pem` is the file of
    a private key.
    """

    def __init__(
        self,
        registry: Registry,
        store: AnchorStore,
        signing_key_pem: Path,
        *,
        every_s: float,
        supervisor: Supervisor,
        now: Callable[[], float] = time.time,
    ) -> None:
        from gateway.audit.dsse_envelope import read_signer

        self._registry = registry
        self._store = store
        self._signer = read_signer(signing_key_pem)
        self._every_s = every_s
        self._supervisor = supervisor
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._kept = ""  # the digest of the head that was kept last
        self.behind_since: float | None = now()  # since when a head is not kept; None: the last one is

    async def start(self) -> None:
        self._task = self._supervisor.start_retrying_task("heads in the second place", self._run)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def lag_gauge(self) -> dict[str, dict[str, float]]:
        """The anchoring's lag as a gauge. It says for how many seconds the anchors have been behind the history."""
        behind_s = 0.0 if self.behind_since is None else max(0.0, self._now() - self.behind_since)
        return {"chips_audit_unanchored_seconds": {"": behind_s}}

    async def anchor_if_new(self) -> bool:
        """Write an anchor if the history has a new head. Returns False where it has none. Raises RegistryError."""
        from gateway.audit.anchors import write_anchor

        head = await self._registry.head()
        if head.digest == self._kept:
            self.behind_since = None
            return False
        if self.behind_since is None:
            self.behind_since = self._now()
        anchored = await write_anchor(self._store, self._registry, self._signer)
        self.behind_since = None
        self._kept = anchored.digest if anchored is not None else ""
        return anchored is not None

    async def _run(self, helper: HelperHealth) -> None:
        await asyncio.sleep(min(_FIRST_S, self._every_s))
        while True:
            wait_s = self._every_s
            try:
                await self.anchor_if_new()
            except RegistryError as error:
                wait_s = min(wait_s, helper.failed(error))
            else:
                helper.succeeded()
            await asyncio.sleep(wait_s)

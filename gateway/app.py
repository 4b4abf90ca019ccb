"""The composition root: settings in, a whole gateway out. Nothing else constructs a collaborator.

Objects are made from the bottom up and started in that order; what was started last is stopped first.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from gateway import __version__
from gateway.auth.api_key import ApiKeys
from gateway.auth.chain import Chain
from gateway.control.routes import Control
from gateway.core.networks import parse_network
from gateway.pipeline import Pipeline
from gateway.registry.base import Registry
from gateway.registry.mirror import Mirror
from gateway.registry.schemes import open_registry
from gateway.server.plain import PlainServer
from gateway.server.protocol import ProblemServer
from gateway.settings import Settings, mask_url
from gateway.stages.admit import Admit
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.forward import Forward
from gateway.stages.identify import Identify
from gateway.stages.limit import Limit
from gateway.stages.route import Route
from gateway.telemetry.logs import LogWriter, direct_logging, wants_json
from gateway.telemetry.record import Record
from gateway.upstream.plain import PlainUpstream

_log = logging.getLogger(__name__)


class Gateway:
    """A whole gateway: `start` it, and `address` says where it listens; `stop` drains it.

    A `registry` given here is used instead of the one the settings name; whoever gave it closes it.
    """

    def __init__(self, settings: Settings, logs: LogWriter, *, registry: Registry | None = None) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._own_registry = registry is None
        self.registry = registry or open_registry(settings.registry)
        self.mirror = Mirror(self.registry, first_load_timeout_s=settings.server.registry_wait_s)
        keys = ApiKeys(self.registry, lambda: self.mirror.snapshot)
        chain = Chain([keys])
        self._upstream = PlainUpstream(
            connections=settings.upstream.connections,
            connect_timeout_s=settings.upstream.connect_timeout_s,
            idle_s=settings.upstream.idle_s,
        )
        limits, edge = settings.limits, settings.edge
        self.limit = Limit(
            in_flight=limits.in_flight,
            model_in_flight=limits.model_in_flight,
            queue=limits.queue,
            queue_wait_s=limits.queue_wait_s,
        )
        self.pipeline = Pipeline(
            identify=Identify(trusted_hops=edge.trusted_hops),
            control=Control(self.mirror, chain),
            admit=Admit([parse_network(network) for network in edge.networks]),
            route=Route(self.mirror),
            authenticate=Authenticate(chain),
            authorize=Authorize(body_limit_bytes=limits.body_bytes),
            limit=self.limit,
            forward=Forward(self._upstream, trusted_hops=edge.trusted_hops),
            record=Record(logs, json=wants_json(settings.log.format), project=settings.log.project),
        )
        self.port = 0

    async def start(self) -> None:
        """Start everything; raises OSError where the port is taken."""
        server = self._settings.server
        async with AsyncExitStack() as stack:
            if self._own_registry:
                stack.push_async_callback(self.registry.close)
            await self.mirror.start()
            stack.push_async_callback(self.mirror.stop)
            await self._upstream.start()
            stack.push_async_callback(self._upstream.stop)
            runner = web.ServerRunner(
                ProblemServer(
                    PlainServer(self.pipeline),
                    handler_cancellation=True,  # a caller who leaves takes the backend's work along
                    auto_decompress=False,
                    access_log=None,
                    keepalive_timeout=server.keep_alive_s,
                    max_line_size=server.header_bytes,
                    max_field_size=server.header_bytes,
                ),
                shutdown_timeout=server.stop_grace_s,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, server.host, server.port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop accepting, let what is under way finish within the grace period, close everything."""
        await self._stack.aclose()


EX_OSERR = 71  # sysexits.h: here, an address that cannot be listened on


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code. A second signal does not wait for the drain."""
    logs = LogWriter(sys.stdout)
    direct_logging(logs, json=wants_json(settings.log.format), level=settings.log.level)
    logs.start()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(settings, logs))
    finally:
        logs.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # PyPy and Windows have none
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, logs: LogWriter) -> int:
    signals = asyncio.Queue[signal.Signals]()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    gateway = Gateway(settings, logs)
    try:
        await gateway.start()
    except OSError as error:
        _log.critical(
            "cannot listen on %s port %s: %s. Another port: CHIPS_SERVER__PORT=8081",
            settings.server.host,
            settings.server.port,
            error.strerror or error,
        )
        return EX_OSERR
    announce(gateway, settings)
    received = await signals.get()
    _log.info("%s: no new requests are taken; what is under way may finish", received.name)
    stopping = asyncio.create_task(gateway.stop(), name="stop")
    impatient = asyncio.create_task(signals.get(), name="second signal")
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not stopping.done():
        _log.warning("second signal: stopped without waiting")
        return 128 + signal.SIGINT
    stopping.result()
    _log.info("stopped")
    return 0


def announce(gateway: Gateway, settings: Settings) -> None:
    """One friendly block on a terminal, one log line elsewhere."""
    snapshot = gateway.mirror.snapshot
    models = sorted(snapshot.entries) if snapshot is not None else []
    address = f"http://{_reachable(settings.server.host)}:{gateway.port}"
    if wants_json(settings.log.format):
        _log.info("CHIPS %s listens on %s with %d models", __version__, address, len(models))
        return
    example = models[0] if models else "my-model"
    shown = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    lines = [
        f"CHIPS {__version__} listens on {address}",
        f"  registry   {mask_url(settings.registry)}" + ("" if snapshot is not None else "  (not read yet)"),
        f"  models     {shown or 'none yet; register one: chips register NAME URL'}",
        f"  allowlist  {', '.join(settings.edge.networks) or 'this machine only (CHIPS_EDGE__NETWORKS)'}",
        f"  call       curl {address}/{example} -H 'X-Api-Key: …' -d '{{\"instances\": […]}}'",
        f"  health     {address}/-/ready        stop with Ctrl-C",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  (the block is for the person at the terminal)


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104

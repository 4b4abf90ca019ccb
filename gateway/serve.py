"""Run the gateway as a process. Flags, signals, exit codes and the start-up banner are handled here."""

import asyncio
import contextlib
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway import __version__
from gateway.app import Gateway
from gateway.core.escape_unprintable import printable, printable_json
from gateway.process_memory_tuning import freeze_objects, keep_large_buffers
from gateway.reuseport_workers import AWAITED, WorkerPool, allowed_cpus, reserve_port
from gateway.server.open_file_limit import raise_file_limit
from gateway.settings import Settings, SettingsError, load_settings, mask_url
from gateway.telemetry.logs import LogWriter, configure_logging, local_time_of_day, rfc3339, should_log_json
from gateway.thread_and_task_supervisor import Supervisor, describe_error
from gateway.worker_heartbeat_files import start_heartbeat

_log = logging.getLogger(__name__)

# sysexits.h
EX_USAGE = 64
EX_SOFTWARE = 70  # here: a stop that does not come to its end
EX_OSERR = 71  # here: an address that cannot be listened on
EX_TEMPFAIL = 75  # here: something in the background failed for good; another process may do better
EX_CONFIG = 78

_AFTER_DRAIN_S = 1.5  # what closing everything may take, once no request is under way
_STEP_S = 0.1

USAGE = """\
Usage: python -m gateway [--config FILE] [--GROUP.NAME=VALUE ...]

Serve models until SIGTERM or Ctrl-C. Every setting can be given as a flag, in chips.toml or in the environment;
`chips check` shows them all.

Examples:
  python -m gateway
  python -m gateway --server.port=9000 --registry=sqlite:///srv/chips/registry.db
  CHIPS_EDGE__NETWORKS=192.0.2.0/24 python -m gateway

Exit codes: 0 stopped as asked, 64 wrong flags, 70 a stop did not end, 71 the port cannot be had, 75 something in the
background failed for good (the log says what), 78 wrong settings.
"""


def serve(arguments: Sequence[str]) -> int:
    """Run the gateway with the command line's arguments; return the process's exit code.

    The settings come from `arguments` and the environment.
    """
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(USAGE)
        return 0
    try:
        config, flags = parse_flags(arguments)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n\n{USAGE}")
        return EX_USAGE
    try:
        settings = load_settings(flags=flags, config=config)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return EX_CONFIG
    return run(settings)


def parse_flags(arguments: Sequence[str]) -> tuple[Path | None, dict[str, str]]:
    """Parse the flags of the command line.

    They give the settings file, and settings. A setting is `--name=value` or `--name value`. ValueError says what is wrong.
    """
    config, flags = None, {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise ValueError(f"{argument!r} is not a flag")
        name, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value")
            value = rest.pop(0)
        if name == "config":
            config = Path(value)
        else:
            flags[name] = value
    return config, flags


def run(settings: Settings) -> int:
    """Run the gateway; return the process's exit code.

    It runs until SIGTERM or SIGINT. A second signal does not wait for the drain.
    """
    raise_file_limit()
    count = settings.server.workers or allowed_cpus()
    if settings.registry.startswith("memory:"):
        count = 1  # what is in one process's memory no other can read
    if count == 1:
        return _run_one(settings, None, None)
    server = settings.server
    try:
        held = reserve_port(server.host, server.port)
    except OSError as error:
        with contextlib.closing(_Log(settings)):
            _tell_taken(settings, error)
        return EX_OSERR
    freeze_objects()
    with held:
        port = held.getsockname()[1]
        shared = msgspec.structs.replace(
            settings, server=msgspec.structs.replace(server, port=port, workers=count)
        )
        workers = WorkerPool(
            count,
            lambda worker, folder, lifeline: _run_one(shared, _Worker(worker, folder, lifeline), lifeline),
            tell=lambda severity, message: log_as_supervisor(settings, severity, message),
            grace_s=server.stop_grace_s + _AFTER_DRAIN_S + 1,
            stall_s=server.stall_s,
            fatal=frozenset({EX_OSERR, EX_CONFIG}),
            reserved=held,
        )
        return workers.run()


class _Worker(NamedTuple):
    number: int
    folder: Path
    lifeline: int


class _Log:
    """The log of one process, from its first line to its last."""

    def __init__(self, settings: Settings, lock: Path | None = None) -> None:
        self.writer = LogWriter(sys.stdout, lock=lock)
        configure_logging(self.writer, json=should_log_json(settings.log.format), level=settings.log.level)
        self.writer.start()

    def close(self) -> None:
        self.writer.stop()


def _run_one(settings: Settings, worker: _Worker | None, lifeline: int | None) -> int:
    log = _Log(settings, worker.folder / "log.lock" if worker is not None else None)
    with contextlib.closing(log), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings, log.writer, worker, lifeline))


def log_as_supervisor(settings: Settings, severity: str, message: str) -> None:
    """Log one line as the supervisor of the workers.

    It is in the configured format.

    The supervisor has no threads and so no log writer: one write writes the whole line or nothing.
    """
    now = time.time()
    if should_log_json(settings.log.format):
        entry = msgspec.json.encode({"severity": severity, "time": rfc3339(now), "message": message})
        line = printable_json(entry.decode()).encode()
    else:
        line = f"{local_time_of_day(now)} {severity.lower()} {printable(message)}".encode()
    with contextlib.suppress(OSError):
        # Never wait for a reader that pauses: the process that supervises the workers must go on. POSIX: a pipe that has room takes
        # this much at once.
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        if poll.poll(0):
            os.write(sys.stdout.fileno(), line[: select.PIPE_BUF - 1] + b"\n")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # PyPy has none
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, logs: LogWriter, worker: _Worker | None, lifeline: int | None) -> int:
    signals = asyncio.Queue[signal.Signals]()
    loop = asyncio.get_running_loop()
    keep_large_buffers()
    _hand_over(signals, loop)
    fatal = _stop_on_fatal(logs.supervisor, signals, loop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)  # a worker is born with them blocked
    if lifeline is not None:  # nobody writes to it: it is readable when the supervisor has died
        loop.add_reader(lifeline, _orphaned, loop, lifeline, signals)
    try:
        gateway = Gateway(settings, logs, folder=worker.folder if worker is not None else None)
    except (ValueError, OSError) as error:  # a file that they name is not there, or not what it should be
        _log.critical("the settings cannot be used: %s", error)
        return EX_CONFIG
    try:
        if not await _start(gateway, signals, grace_s=settings.server.stop_grace_s):
            return EX_TEMPFAIL if fatal else 0
    except OSError as error:
        _tell_taken(settings, error)
        return EX_OSERR
    if worker is not None:
        start_heartbeat(loop, worker.folder, worker.number)
    if worker is None or worker.number == 0:
        print_startup_banner(gateway, settings)
    received = await signals.get()
    _log.info(
        "%s: no new connections are taken; what callers have sent is answered", signal.Signals(received).name
    )
    stopping = asyncio.create_task(gateway.stop(), name="stop")
    impatient = asyncio.create_task(signals.get(), name="second signal")
    bound_s = settings.server.stop_grace_s + _AFTER_DRAIN_S
    # In short waits: where the whole process stood still meanwhile, that is no stop that hangs.
    for _ in range(math.ceil(bound_s / _STEP_S)):
        done, _ = await asyncio.wait(
            {stopping, impatient}, timeout=_STEP_S, return_when=asyncio.FIRST_COMPLETED
        )
        if done:
            break
    if not stopping.done() and not impatient.done():
        _log.error("the stop has taken %g s; it ends here, with something left that does not end", bound_s)
        logging.disable()
        return EX_SOFTWARE
    impatient.cancel()
    if not stopping.done():
        _log.warning("second signal: stopped without waiting")
        logging.disable()  # everything that is cut off now would tell of it with its stack
        return 128 + signal.SIGINT
    stopping.result()
    _log.info("stopped")
    return EX_TEMPFAIL if fatal else 0


def _stop_on_fatal(
    supervisor: Supervisor, signals: "asyncio.Queue[signal.Signals]", loop: asyncio.AbstractEventLoop
) -> list[str]:
    """Stop as if told to where a helper has ended for good; the list then holds the reason."""
    reasons: list[str] = []

    def stop(name: str, error: BaseException) -> None:
        reason = f"{name}: it has ended for good, and with it this process: {describe_error(error)}"
        reasons.append(reason)
        _log.critical("%s", reason)
        with contextlib.suppress(OSError, ValueError):  # the log itself may be what has ended
            sys.stderr.write(f"error: {reason}\n")
            sys.stderr.flush()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(signals.put_nowait, signal.SIGTERM)

    supervisor.on_fatal = stop
    return reasons


def _hand_over(signals: "asyncio.Queue[signal.Signals]", loop: asyncio.AbstractEventLoop) -> None:
    """Put each signal into the queue, once: uvloop's own handlers are at times called twice for one on a busy machine."""

    def take(number: int, frame: object) -> None:  # noqa: ARG001
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the process about to end
            loop.call_soon_threadsafe(signals.put_nowait, signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)


async def _start(gateway: Gateway, signals: "asyncio.Queue[signal.Signals]", *, grace_s: float) -> bool:
    """Start the gateway, unless a signal ends that: a registry that is away may keep a start waiting for long."""
    starting = asyncio.create_task(gateway.start(), name="start")
    stopped = asyncio.create_task(signals.get(), name="first signal")
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        if stopped.done():  # both at once: keep the stop for the next wait
            signals.put_nowait(stopped.result())
        stopped.cancel()
        starting.result()
        return True
    _log.info("%s: stopped before the start was complete", signal.Signals(stopped.result()).name)
    starting.cancel()  # what has been started so far is stopped on the way out
    impatient = asyncio.create_task(signals.get(), name="second signal")
    await asyncio.wait({starting, impatient}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if starting.done() and not starting.cancelled() and starting.exception() is None:
        await gateway.stop()  # it was complete at that very moment
    return False


def _orphaned(
    loop: asyncio.AbstractEventLoop, lifeline: int, signals: "asyncio.Queue[signal.Signals]"
) -> None:
    loop.remove_reader(lifeline)
    signals.put_nowait(signal.SIGTERM)


def _tell_taken(settings: Settings, error: OSError) -> None:
    host, port = settings.server.host, settings.server.port
    _log.critical(
        "cannot listen on %s port %d: %s; another port: CHIPS_SERVER__PORT=%d", host, port, error, port + 1
    )


def print_startup_banner(gateway: Gateway, settings: Settings) -> None:
    """Print the banner that says where the gateway listens. It is a block of text on a terminal, one log line elsewhere."""
    if settings.server.path == "plain":
        _log.warning(
            "server.path = plain: aiohttp's client forgives what backends frame badly, and fields that are not UTF-8 are "
            "refused; docs/threat-model.md says what differs"
        )
    snapshot = gateway.mirror.snapshot
    models = sorted(snapshot.entries) if snapshot is not None else []
    address = f"http://{_reachable(settings.server.host)}:{gateway.port}"
    if should_log_json(settings.log.format):
        _log.info("CHIPS %s listens on %s with %d models", __version__, address, len(models))
        return
    example = models[0] if models else "my-model"
    shown = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    lines = [
        f"CHIPS {__version__} listens on {address}",
        f"  registry   {mask_url(settings.registry)}" + ("" if snapshot is not None else "  (not read yet)"),
        f"  models     {shown or 'none yet; register one: chips register NAME URL'}",
        f"  allowlist  {', '.join(settings.edge.networks) or 'this machine only; widen it with CHIPS_EDGE__NETWORKS'}",
        f"  call       curl {address}/{example} -H 'X-Api-Key: …' --json '{{\"instances\": […]}}'",
        f"  health     {address}/-/ready        stop with Ctrl-C",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104

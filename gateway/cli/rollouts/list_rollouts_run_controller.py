"""`chips rollouts`: list the last rollouts, or run the controller that takes the steps of all rollouts."""

import asyncio
import logging
import signal
import sys
from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_CONFIG, EX_UNAVAILABLE, Failure
from gateway.registry.base import ROLLOUTS, Registry
from gateway.registry.snapshot import read_rollout
from gateway.settings import Settings, mask_url

_log = logging.getLogger(__name__)

rollouts = typer.Typer(
    name="rollouts", help="The rollouts of all models, and the controller that takes their steps."
)


@rollouts.command("list")
def list_last_rollouts(
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the last rollout of each model.

    Example: `chips rollouts list`
    """

    async def work(registry: Registry) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for document in await registry.list(ROLLOUTS):
            try:
                rollout = read_rollout(document)
            except ValueError as error:
                found.append({"model": document.name, "state": "unreadable", "reason": str(error)})
            else:
                found.append(
                    {
                        "model": rollout.model,
                        "state": rollout.state,
                        "candidate": rollout.candidate,
                        "percent": rollout.percent,
                        "reason": rollout.reason,
                    }
                )
        return found

    found = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(found)
        return
    for one in found:
        share = f"version {one['candidate']} at {one['percent']} %: " if "percent" in one else ""
        console.say(str(one["model"]), f"{one['state']}, {share}{one['reason']}")
    if not found:
        console.out.print("no rollouts yet: chips canary NAME VERSION begins one")


@rollouts.command("run")
def run(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Answer /-/live here, as Cloud Run asks; otherwise on no port."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address for --port.")] = "0.0.0.0",  # noqa: S104
    registry_url: console.RegistryOption = None,
) -> None:
    """Run the controller of all rollouts until SIGTERM.

    One process at a time takes the steps, by a lease; the others stand by.

    A gateway does the same unless `rollouts.controller` is false.

    Example: `chips rollouts run --registry firestore://my-project/chips`
    """
    settings = console.settings_for(registry_url)
    raise typer.Exit(asyncio.run(_run(settings, host, port)))


async def _run(settings: Settings, host: str, port: int | None) -> int:
    from gateway.component_factories import build_controller, build_figures_store, build_mirror
    from gateway.registry.open_by_url import open_registry
    from gateway.telemetry.logs import LogWriter, configure_logging, should_log_json
    from gateway.thread_and_task_supervisor import Supervisor

    writer = LogWriter(sys.stdout)
    configure_logging(writer, json=should_log_json(settings.log.format), level=settings.log.level)
    writer.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    supervisor: Supervisor = writer.supervisor
    failed: list[str] = []

    def fatal(name: str, error: BaseException) -> None:
        failed.append(f"{name}: {error}")
        loop.call_soon_threadsafe(stop.set)

    supervisor.on_fatal = fatal
    registry = open_registry(settings.registry)
    figures = build_figures_store(settings, registry)
    mirror = build_mirror(settings, registry, supervisor)
    try:
        controller = build_controller(settings, registry, figures, mirror, supervisor)
    except ValueError as error:
        raise Failure(str(error), hint="the controller signs webhooks with it", code=EX_CONFIG) from None
    server = await _listen(host, port) if port is not None else None
    try:
        await mirror.start()
        await controller.start()
        _log.info("the controller of rollouts runs, on the registry %s", mask_url(settings.registry))
        await stop.wait()
        _log.info("stopped")
    finally:
        await controller.stop()
        await mirror.stop()
        if figures is not registry:
            await figures.close()
        await registry.close()
        if server is not None:
            server.close()
        writer.stop()
    return 75 if failed else 0


async def _listen(host: str, port: int) -> asyncio.Server:
    """A listener that says this process is alive, whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, host, port, limit=16_384)
    except OSError as error:
        raise Failure(
            f"cannot listen at {host}:{port}: {error.strerror or error}",
            hint="--host and --port say where",
            code=EX_UNAVAILABLE,
        ) from None

"""A gateway with a fault to find: three versions of one model, one of them slow. docs/tutorial/find-the-slow-version.md

    python -m examples.slow_version

Backends and callers live in this process; the registry and the kept requests are files in a folder of its own, which also
has `env` for your shell. Ctrl-C ends it.
"""

import argparse
import asyncio
import contextlib
import io
import random
import shlex
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import web

from examples.local import write_environment
from gateway.app import Gateway
from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model, Policy, Tensor
from gateway.core.model_updates import to_document
from gateway.core.principal import CALLER_VERBS, VERBS, Verb
from gateway.free_ports import claim_free_port
from gateway.registry.base import KEYS, MODELS, Put, Registry
from gateway.registry.open_by_url import open_registry
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter

INPUTS = tuple(
    Tensor(name=name, datatype="FP64", shape=(-1,)) for name in ("alcohol", "malic_acid", "ash", "magnesium")
)
OUTPUTS = (Tensor(name="prediction", datatype="INT64", shape=(-1,)),)
# Typical milliseconds in the model. Version 3 was to be an improvement; somebody left a debugging loop in it.
VERSIONS = {"1": 6.0, "2": 7.0, "3": 80.0}
TRAFFIC = {"1": 60, "2": 30, "3": 10}
_chance = random.Random(3)  # noqa: S311  (nothing to guess)


class Running(NamedTuple):
    url: str
    folder: Path  # its registry and the requests that it keeps
    operator: str  # a key for the console
    caller: str  # a key to score with


def backend(version: str, typical_ms: float) -> web.Application:
    """A backend that sleeps as long as its model would work, and says so in Server-Timing."""

    async def predict(request: web.Request) -> web.Response:
        await request.read()
        model_ms = typical_ms * _chance.lognormvariate(0, 0.25)
        await asyncio.sleep(model_ms / 1000)
        return web.json_response(
            {"predictions": [1], "model": "wine", "version": version},
            headers={
                "Server-Timing": f"queue;dur=0.1, parse;dur=0.2, predict;dur={model_ms:.2f}, render;dur=0.1"
            },
        )

    app = web.Application()
    app.router.add_post("/predict", predict)
    return app


@asynccontextmanager
async def running(
    *, port: int = 0, folder: Path | None = None, logs: io.TextIOWrapper | None = None
) -> AsyncIterator[Running]:
    """The whole of it, until the block ends. The callers never pause for long."""
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backends = []
        for version, typical_ms in VERSIONS.items():
            runner = web.AppRunner(backend(version, typical_ms), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            backends.append(Backend(version=version, url=url, inputs=INPUTS, outputs=OUTPUTS))
        registry = open_registry(f"sqlite:{folder / 'registry.db'}")
        stack.push_async_callback(registry.close)
        model = Model(
            name="wine",
            description="Which of three vineyards a wine comes from",
            policy=Policy(latency_s=0.05),
            backends=tuple(backends),
            traffic=TRAFFIC,
        )
        await registry.write(
            Put(kind=MODELS, name="wine", body=to_document(model), expected=0),
            author="ana",
            reason="send a tenth to version 3",
        )
        operator, caller = (
            await _make_key(registry, "operator", VERBS),
            await _make_key(registry, "app", CALLER_VERBS),
        )
        settings = load_settings(
            flags={
                "registry": f"sqlite:{folder / 'registry.db'}",
                "server.host": "127.0.0.1",
                "server.port": str(port),
                "trace.store": str(folder / "requests.db"),
                "log.format": "json",
            },
            environ={},
        )
        writer = LogWriter(logs if logs is not None else io.TextIOWrapper(io.BytesIO()))
        writer.start()
        stack.callback(writer.stop)
        gateway = Gateway(settings, writer)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        url = f"http://127.0.0.1:{gateway.port}"
        callers = [asyncio.create_task(_call(url, caller)) for _ in range(4)]
        stack.push_async_callback(_end, callers)
        yield Running(url, folder, operator, caller)


async def _make_key(registry: Registry, label: str, verbs: tuple[Verb, ...]) -> str:
    key = make_key()
    document = Key(label=label, models=("*",), verbs=verbs, created="2026-01-01T00:00:00Z")
    await registry.write(
        Put(kind=KEYS, name=digest_key(key), body=to_document(document), expected=0), author="ana"
    )
    return key


async def _call(url: str, key: str) -> None:
    body = {"instances": [{tensor.name: 1.0 for tensor in INPUTS}]}
    async with aiohttp.ClientSession(headers={"X-Api-Key": key}) as session:
        while True:
            async with session.post(f"{url}/wine", json=body) as answer:
                await answer.read()
            await asyncio.sleep(_chance.expovariate(1 / 0.05))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _empty(folder: Path) -> None:
    """Make `folder`, without the files that an earlier run left in it."""
    folder.mkdir(exist_ok=True)
    for pattern in ("registry.db*", "requests.db*", "env"):
        for path in folder.glob(pattern):
            path.unlink()


def _write_environment(it: Running) -> None:
    variables = {
        "CHIPS_REGISTRY": f"sqlite:{it.folder / 'registry.db'}",
        "CHIPS_TRACE__STORE": str(it.folder / "requests.db"),
        "CHIPS_GATEWAY": it.url,
        "CHIPS_KEY": it.operator,
    }
    write_environment(it.folder / "env", variables)


async def _main(port: int, folder: Path, shown: Path) -> None:
    _empty(folder)
    async with running(port=port, folder=folder) as it:
        _write_environment(it)
        print(
            f"The console      {it.url}/-/console/\n"
            f"Its key          {it.operator}\n"
            f"At the terminal  . {shlex.quote(str(shown / 'env'))}\n"
            f"                 chips top; chips tail; chips why ID\n"
            f"Something in the model wine is slow. Ctrl-C ends this.",
            flush=True,
        )
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--folder", type=Path, default=Path(".slow-version"), help="where its files go")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        port = claim_free_port(prefer=arguments.port)
        asyncio.run(_main(port, arguments.folder.absolute(), arguments.folder))

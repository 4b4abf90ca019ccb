"""Wait until one running gateway serves the registry state that was just written."""

import asyncio
import time
from typing import Annotated, Final

import msgspec
import typer

from gateway.registry.base import MirroredListing

WatchedGatewayOption = Annotated[
    str | None,
    typer.Option(
        "--gateway",
        envvar="CHIPS_GATEWAY",
        help="A running gateway to watch. [default: the environment's, else this machine's]",
    ),
]
_WAIT_S: Final = 5.0
_ANSWER_S: Final = 2.0
_POLL_S: Final = 0.05


class _SeenRegistry(msgspec.Struct):
    id: str
    generation: int
    held: str | None = None  # why the gateway serves an older state than the registry's


class _Readiness(msgspec.Struct):
    """What is read of a gateway's own `/-/ready`, which shows more to a caller that names its registry."""

    ready: bool = False
    registry: _SeenRegistry | None = None


async def wait_until_served(address: str, listing: MirroredListing) -> str:
    """Wait until the gateway at `address` serves `listing`.

    `listing` is a state of the registry. It waits 5 seconds at most. Returns what prevents it; empty where the gateway serves
    it.
    """
    import aiohttp

    give_up_at = time.monotonic() + _WAIT_S
    obstacle = ""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_ANSWER_S), trust_env=False
    ) as session:
        while time.monotonic() < give_up_at:
            try:
                async with session.get(
                    f"{address}/-/ready", params={"registry": listing.registry_id}
                ) as response:
                    readiness = msgspec.json.decode(await response.read(), type=_Readiness)
            except TimeoutError:  # it may stand still for a moment
                obstacle = f"the gateway at {address} does not answer"
                continue
            except (aiohttp.ClientError, ValueError):
                return f"no gateway answers at {address}; start one with: chips serve"
            registry = readiness.registry
            if not readiness.ready:
                obstacle = f"the gateway at {address} has not read its registry yet"
            elif registry is None or registry.id != listing.registry_id:
                return f"the gateway at {address} reads another registry"
            elif registry.held:
                obstacle = f"the gateway at {address} does not believe the registry yet: {registry.held}"
            elif registry.generation >= listing.generation:
                return ""
            else:
                obstacle = f"the gateway at {address} has not seen generation {listing.generation} yet"
            await asyncio.sleep(_POLL_S)
    return obstacle

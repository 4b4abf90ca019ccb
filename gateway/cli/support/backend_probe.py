"""Probe a backend: wait until it is ready, and read its metadata.

The metadata name its model, version, signature and concurrency.
"""

import asyncio
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin

import aiohttp
import msgspec

from gateway.cli.support.backend_credentials import credentials_refused
from gateway.cli.support.connection_errors import connection_error_text
from gateway.cli.support.console import EX_PROTOCOL, EX_UNAVAILABLE, Failure
from gateway.cli.support.model_server_detection import LARGEST_ANSWER
from gateway.core.model import Tensor
from gateway.core.read_at_most import read_at_most

_TIMEOUT_S = 5.0
_POLL_S = 0.25
_NOT_UP_YET = frozenset({502, 503, 504})  # a load balancer speaks for a container that is starting


OPTIONS = (
    "name its path and version yourself: --path PATH --version VERSION (--path / is the root); "
    "--header NAME:VALUE shows it credentials, --wait SECONDS waits for it, and --force registers it without asking"
)


class NotAChipsBackend(Failure):
    """The server is not a CHIPS backend.

    It answers, but not as the backend contract says: it may be a model server of another kind.
    """


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """A model's metadata, as its backend states them.

    They are those of the Open Inference Protocol; `parameters` has what the backend contract adds.
    """

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    parameters: dict[str, Any] = {}

    def integer_parameter(self, name: str) -> int | None:
        value = self.parameters.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def text_parameter(self, name: str) -> str:
        value = self.parameters.get(name)
        return value if isinstance(value, str) else ""


async def probe(
    url: str,
    model: str,
    *,
    wait_s: float,
    progress: Callable[[str], None],
    headers: Mapping[str, str] | None = None,
) -> ModelMetadata:
    """Wait until the backend at `url` is ready, and return its metadata about `model`. Raises Failure.

    `headers` are credentials for a backend that requires them.
    """
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False, headers=headers
    ) as session:
        await _wait_until_ready(session, url, wait_s, progress)
        status, body = await _get(session, url, f"/v2/models/{model}")
    if status == 404:
        raise NotAChipsBackend(
            f'the backend at {url} is ready, but serves no model "{model}"',
            hint=f"register it under the name in its CHIPS_MODEL, or start it with another one; else {OPTIONS}",
            code=EX_PROTOCOL,
        )
    if status != 200:
        raise _broken(url, f"GET /v2/models/{model} answered {status} instead of 200")
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
        # Some servers send null for what they do not know.
        metadata = msgspec.convert({k: v for k, v in said.items() if v is not None}, ModelMetadata)
    except ValueError as error:  # not JSON, not UTF-8, or not these fields
        raise _broken(url, f"its metadata is not what the contract says: {error}") from None
    if metadata.name != model:
        raise NotAChipsBackend(
            f'the backend at {url} serves "{metadata.name}", not "{model}"',
            hint=f"chips register {shlex.quote(metadata.name)} {url}",
            code=EX_PROTOCOL,
        )
    return metadata


async def _wait_until_ready(
    session: aiohttp.ClientSession, url: str, wait_s: float, progress: Callable[[str], None]
) -> None:
    give_up_at = time.monotonic() + wait_s
    while True:
        failure = await _readiness(session, url)
        if failure is None:
            return
        if time.monotonic() >= give_up_at or failure.code != EX_UNAVAILABLE:
            raise failure
        progress(failure.message)
        await asyncio.sleep(_POLL_S)


async def _readiness(session: aiohttp.ClientSession, url: str) -> Failure | None:
    try:
        live, _ = await _get(session, url, "/v2/health/live")
        if live in _NOT_UP_YET:
            return Failure(
                f"what stands in front of {url} answers {live}: the backend is not up yet",
                hint="wait longer with --wait 300, and look at the backend's log",
                code=EX_UNAVAILABLE,
            )
        ready, _ = await _get(session, url, "/v2/health/ready") if live == 200 else (0, b"")
    except Failure as failure:
        return failure
    if {401, 403} & {live, ready}:
        return credentials_refused(url)
    if live != 200:
        return _broken(url, f"GET /v2/health/live answered {live} instead of 200")
    if ready == 503:
        return Failure(
            f"the backend at {url} is live, but not ready yet",
            hint="it may still be loading its model: wait longer with --wait 300, and look at its log",
            code=EX_UNAVAILABLE,
        )
    if ready != 200:
        return _broken(url, f"GET /v2/health/ready answered {ready} instead of 200 or 503")
    return None


async def _get(session: aiohttp.ClientSession, url: str, path: str) -> tuple[int, bytes]:
    try:
        async with session.get(url + path, allow_redirects=False) as response:
            location = response.headers.get("Location", "")
            if 300 <= response.status < 400 and location:
                raise _redirected(url, path, response.status, location)
            return response.status, await read_at_most(response.content.iter_any(), LARGEST_ANSWER)
    except ValueError as error:
        raise _broken(url, f"GET {path}: {error}") from None
    except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError):
        raise _broken(url, "what it sends is not HTTP") from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        reason = connection_error_text(error, url, _TIMEOUT_S)
    raise Failure(
        f"the backend cannot be reached: {reason}",
        hint="is it running, and is the address right as seen from this machine? --wait SECONDS waits longer; "
        "--force registers it all the same, and the history says so",
        code=EX_UNAVAILABLE,
    )


def _broken(url: str, what: str) -> Failure:
    return NotAChipsBackend(
        f"what answers at {url} is not a backend as the contract describes: {what}",
        hint=f"backends/CONTRACT.md says what every backend answers; for any other service {OPTIONS}",
        code=EX_PROTOCOL,
    )


def _redirected(url: str, path: str, status: int, location: str) -> Failure:
    """A gateway does not follow redirects: the address at the end of them is the backend's."""
    target = urljoin(url + path, location)
    base = target.removesuffix(path)
    moved = base not in {target, url}
    return NotAChipsBackend(
        f"{url} redirects: GET {path} answered {status} with Location: {target[:200]}",
        hint=(f"register the address that it redirects to, {base}; else {OPTIONS}" if moved else OPTIONS),
        code=EX_PROTOCOL,
    )

"""HTTP client for a running gateway's operator pages (`/-/…`), which are JSON documents and server-sent events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli.support.connection_errors import connection_error_text
from gateway.cli.support.console import EX_DATAERR, EX_PROTOCOL, EX_UNAVAILABLE, Failure

if TYPE_CHECKING:  # most commands never ask a gateway
    import aiohttp

EX_NOPERM = 77
_TIMEOUT_S = 10.0

GatewayOption = Annotated[
    str,
    typer.Option(
        "--gateway", envvar="CHIPS_GATEWAY", help="Address of a gateway, such as http://127.0.0.1:8080."
    ),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key", envvar="CHIPS_KEY", help="A key that may operate it; better in CHIPS_KEY than here."
    ),
]


class OperatorPagesClient:
    """An HTTP client for the operator pages of one running gateway. It reads JSON documents and server-sent events."""

    def __init__(self, session: "aiohttp.ClientSession", address: str) -> None:
        self._session = session
        self._address = address.rstrip("/")

    async def get_json(self, path: str, part: str, **query: str) -> Any:
        """Get the JSON document at `path`, which every gateway has and in which there is `part`. Raises Failure."""
        document = await self.get_json_or_none(path, **query)
        if not isinstance(document, dict) or part not in document:
            raise Failure(
                f"what answers at {self._address} is not this gateway",
                hint="name the gateway's address, without a path, with --gateway or CHIPS_GATEWAY",
                code=EX_PROTOCOL,
            )
        return document

    async def get_json_or_none(self, path: str, **query: str) -> Any:
        """Get the JSON document at `path`. None where there is none (404). Raises Failure."""
        import aiohttp

        try:
            async with self._session.get(
                self._address + path, params=query, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
            ) as answer:
                body = await answer.read()
                if answer.status == 404:
                    return None
                self._check(answer.status, body)
                return msgspec.json.decode(body)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            raise self._away(error) from None

    async def server_sent_events(self, path: str) -> AsyncIterator[tuple[str, Any]]:
        """Read the server-sent events at `path`. It ends when the gateway ends them. Raises Failure."""
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=None, connect=_TIMEOUT_S, sock_read=60)
            async with self._session.get(
                self._address + path, timeout=timeout, read_bufsize=8 * 1024 * 1024
            ) as answer:
                if answer.status != 200:
                    self._check(answer.status, await answer.read())
                name = ""
                async for raw in answer.content:
                    line = raw.decode("utf-8").rstrip("\n")
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        yield name, msgspec.json.decode(line[6:])
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            raise self._away(error) from None

    def _check(self, status: int, body: bytes) -> None:
        if status == 200:
            return
        try:
            detail = str(msgspec.json.decode(body).get("detail", ""))
        except (msgspec.DecodeError, AttributeError):
            detail = ""
        if status in {401, 403}:
            raise Failure(
                f"{self._address}: {detail or 'refused'}",
                hint="set CHIPS_KEY to a key that may operate the gateway; `chips keys create --help` tells how one is made",
                code=EX_NOPERM,
            )
        raise Failure(
            f"{self._address} answered {status}: {detail}",
            code=EX_DATAERR if status < 500 else EX_UNAVAILABLE,
        )

    def _away(self, error: Exception) -> Failure:
        return Failure(
            f"no gateway answers at {self._address}: {connection_error_text(error, self._address, _TIMEOUT_S)}",
            hint="is it running? name another with --gateway or CHIPS_GATEWAY",
            code=EX_UNAVAILABLE,
        )


@asynccontextmanager
async def operator_pages_client(address: str, key: str) -> AsyncIterator[OperatorPagesClient]:
    """A client for the operator pages of the gateway at `address`, authenticated with an API key. Raises Failure."""
    import aiohttp

    headers = {"X-Api-Key": key} if key else {}
    try:
        async with aiohttp.ClientSession(trust_env=False, headers=headers) as session:
            yield OperatorPagesClient(session, address)
    except aiohttp.InvalidURL:
        raise Failure(f"{address!r} is not an address", code=EX_DATAERR) from None

"""What an upstream is: it carries one request to a backend and pipes the answer into the exchange's reply."""

from typing import NamedTuple, Protocol

from gateway.core.exchange import Exchange


class Outbound(NamedTuple):
    """A request as the backend shall see it, but for Host and the framing of its body."""

    method: str
    url: str  # the backend's address, no trailing slash
    path: str  # below it, with the query
    fields: list[bytes]  # flat: `name: `, value, CRLF


class Upstream(Protocol):
    async def start(self) -> None: ...

    async def send(self, exchange: Exchange, outbound: Outbound) -> None:
        """Return when the caller has the whole answer.

        Raises an UpstreamError (or PayloadTooLarge) where it fails; whether a part of the answer has gone out by then
        is for `exchange.reply.started` to say. Fills `exchange.attempts`, `bytes_in`, `backend_server_timing`.
        """

    async def stop(self) -> None: ...

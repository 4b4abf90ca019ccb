"""The upstream that sends requests over pooled connections.

This is the fast path to backends. A small request takes one write, and responses are
relayed as they arrive.
"""

import asyncio
import time
from typing import Final
from urllib.parse import urlsplit

from gateway.core.errors import BrokenUpstreamResponse, GatewayError, PayloadTooLarge
from gateway.core.exchange import Attempt, Exchange
from gateway.core.header_classification import asks_for_websocket
from gateway.core.inline_wakeup_future import InlineWakeupFuture, continue_in_own_task
from gateway.thread_and_task_supervisor import Supervisor
from gateway.upstream.backend_connection import BackendConnection
from gateway.upstream.backend_tls import backend_tls_context
from gateway.upstream.base import BackendCredentials, EgressCheck, PipedBody, UpstreamRequest, trace_lines
from gateway.upstream.connection_pool import Pool
from gateway.upstream.pool_metrics import Reading, pool_counters, pool_gauges
from gateway.upstream.timeout_or_deadline_error import timeout_or_deadline_error

_TICK_S: Final = 0.02  # how late a deadline may be noticed
_IDLE_TICK_S: Final = 1.0
_KNOWN_LIMIT: Final = 1024
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})  # RFC 9110 section 9.2.2
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class _Origin:
    """Where a backend's address leads, and the first lines of requests to it."""

    __slots__ = ("base", "host", "pool", "prefixes")

    def __init__(self, pool: Pool, host: str, base: str) -> None:
        self.pool = pool
        self.host = host
        self.base = base
        self.prefixes: dict[tuple[str, str], bytes] = {}

    def prefix(self, method: str, path: str) -> bytes:
        key = (method, path)
        prefix = self.prefixes.get(key)
        if prefix is None:
            prefix = f"{method} {self.base}{path} HTTP/1.1\r\nHost: {self.host}\r\n".encode("latin-1")
            if len(path) <= 128:
                if len(self.prefixes) >= _KNOWN_LIMIT:
                    self.prefixes.clear()
                self.prefixes[key] = prefix
        return prefix


class PooledUpstream:
    """An upstream that sends requests over pooled connections. A backend has `connections` of them at most."""

    def __init__(
        self,
        *,
        connections: int,
        connect_timeout_s: float,
        idle_s: float,
        tunnel_idle_s: float,
        extra_ca_file: str = "",
        egress_policy: EgressCheck | None = None,
        identity: BackendCredentials | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._timer = self._supervisor.helper("time-outs of backends")
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._tunnel_idle_s = tunnel_idle_s
        self._extra_ca_file = extra_ca_file
        self._egress_policy = egress_policy
        self._identity = identity
        self._origins: dict[str, _Origin] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alert = False
        self.pools: dict[str, Pool] = {}  # by scheme, host and port; for metrics

    async def start(self) -> None:
        self._tick()

    async def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for pool in self.pools.values():
            await pool.close()

    def gauges(self) -> Reading:
        return pool_gauges(self.pools)

    def counters(self) -> Reading:
        return pool_counters(self.pools)

    async def send(self, exchange: Exchange, request: UpstreamRequest) -> None:
        body: PipedBody = exchange.body  # type: ignore[assignment]  # the server's own, which flows
        origin = self._origins.get(request.url) or self._open_origin(request.url)
        pool = origin.pool
        if not self._alert:
            self._arm_timer()
        identity = self._identity
        proof = b"" if identity is None else await self._proof(identity, request.url, exchange)
        whole = _whole_body(exchange, body)
        fresh = False
        while True:
            began = time.monotonic()
            attempt = Attempt(began)
            exchange.attempts.append(attempt)
            connection = None if fresh else pool.acquire_idle()
            begun = False
            try:
                if connection is None:
                    connection = await pool.acquire(exchange.deadline)
                    attempt.connected = time.monotonic()
                    if connection.uses > 0:
                        attempt.reused = True
                    else:
                        attempt.dialed = connection.dialed
                        attempt.opening_s = attempt.connected - began
                    whole = _whole_body(exchange, body)  # it may have arrived, or failed, while we waited
                else:
                    attempt.reused = True
                    attempt.connected = began
                completion = _begin(exchange, body, whole, request, origin, attempt, connection, proof)
                begun = True
                await completion
                return
            except GatewayError as error:
                attempt.failure = error.code
                if fresh or connection is None or not _may_repeat(exchange, error, attempt, connection, body):
                    raise
                # The backend had closed this connection when, or before, the request reached it.
                fresh = True
                pool.repeats += 1
            except TimeoutError:
                late = timeout_or_deadline_error(exchange)
                attempt.failure = late.code
                raise late from None
            finally:
                attempt.ended = time.monotonic()
                if connection is not None and connection.is_serving(attempt):
                    connection.abort()  # whatever ended this attempt, it was not the answer
                elif connection is not None and not begun:
                    pool.release(connection)  # nothing was sent on it

    async def _proof(self, identity: BackendCredentials, url: str, exchange: Exchange) -> bytes:
        audience = exchange.backend.audience
        fields = identity.cached_fields(url, audience)
        if fields is None:
            await continue_in_own_task()
            fields = await identity.fetch_fields(url, audience)
        return b"".join(fields)

    def _open_origin(self, url: str) -> _Origin:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        host = parts.hostname or ""
        name = f"{parts.scheme}://{host}:{port}"
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(
                host=host,
                port=port,
                limit=self._connections,
                connect_timeout_s=self._connect_timeout_s,
                idle_s=self._idle_s,
                tunnel_idle_s=self._tunnel_idle_s,
                tls=backend_tls_context(self._extra_ca_file) if secure else None,
                egress_policy=self._egress_policy,
                supervisor=self._supervisor,
            )
        if len(self._origins) >= _KNOWN_LIMIT:
            self._origins.clear()  # backends come and go; the pools stay as long as they have connections
            self.pools = {key: kept for key, kept in self.pools.items() if kept is pool or not kept.is_empty}
        origin = self._origins[url] = _Origin(pool, parts.netloc, parts.path)
        return origin

    # -- time

    def _arm_timer(self) -> None:
        """Something has a deadline now."""
        self._alert = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        """One timer for all deadlines: a timer per request would cost each of them more than this costs all."""
        now = time.monotonic()

        def expire(pool: Pool) -> None:
            pool.close_idle(now)
            for connection in pool.overdue_connections(now):
                connection.expire(TimeoutError())
            pool.expire_waiters(now)

        pools = tuple(self.pools.values())
        self._timer.each(pools, expire)
        self._alert = alert = any(pool.has_requests for pool in pools)
        self._alarm = asyncio.get_running_loop().call_later(_TICK_S if alert else _IDLE_TICK_S, self._tick)


def _begin(
    exchange: Exchange,
    body: PipedBody,
    whole: bytes | None,
    request: UpstreamRequest,
    origin: _Origin,
    attempt: Attempt,
    connection: BackendConnection,
    proof: bytes,
) -> InlineWakeupFuture:
    """Write the request, or its head and what is there of its body; the turn comes with the end of the answer."""
    method = request.method
    upgrading = method == "GET" and asks_for_websocket(method, exchange.head.read)
    parts = [origin.prefix(method, request.path), *request.fields, trace_lines(exchange, attempt), proof]
    if upgrading:
        parts.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    if whole is not None:
        if whole or method in _WITH_BODY:
            parts.append(b"Content-Length: %d\r\n\r\n" % len(whole))
            parts.append(whole)
        else:
            parts.append(b"\r\n")
        completion = connection.start_exchange(exchange, attempt, b"".join(parts), upgrading)
        attempt.sent = time.monotonic()
        return completion
    length = body.length
    parts.append(
        b"Transfer-Encoding: chunked\r\n\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
    )
    completion = connection.start_exchange(exchange, attempt, b"".join(parts))
    connection.send_body(body, chunked=length is None, limit_bytes=exchange.body_limit_bytes)
    return completion


def _whole_body(exchange: Exchange, body: PipedBody) -> bytes | None:
    """A body that has arrived, which is counted; None for one that is still to come.

    Raises PayloadTooLarge: one whose length was not declared is too large only now.
    """
    if body.error is not None:
        raise body.error
    if not body.complete:
        return None
    whole = body.buffered_body()
    size = exchange.bytes_in = len(whole)
    if size > exchange.body_limit_bytes:
        raise PayloadTooLarge(exchange.body_limit_bytes)
    return whole


def _may_repeat(
    exchange: Exchange,
    error: GatewayError,
    attempt: Attempt,
    connection: BackendConnection,
    body: PipedBody,
) -> bool:
    """Whether the request can go out once more without being done twice, or without harm where it is."""
    return (
        attempt.reused
        and isinstance(error, BrokenUpstreamResponse)
        and not connection.answer_began
        and body.complete
        and not body.piping_started
        and not exchange.response.started
        and (exchange.method in _REPEATABLE or exchange.model.policy.pure is True)
    )

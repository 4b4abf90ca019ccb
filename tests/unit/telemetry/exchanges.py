"""Exchanges as stages would have left them."""

from typing import Any

from gateway.core.exchange import Attempt, Exchange
from gateway.core.ip_network_set import parse_address
from gateway.core.model import Backend, Model, Policy
from gateway.core.principal import Principal
from gateway.core.trace_context import continue_trace, new_trace_id

ARRIVED = 1000.0
NO_POLICY = Policy()


class NoBody:
    length = 0


def make_exchange(
    *,
    took_s: float = 0.1,
    status: int = 200,
    model: str | None = "wine",
    version: str = "1",
    caller: str | None = "key-1",
    policy: Policy = NO_POLICY,
    attempts: int = 1,
    server_timing: bytes | None = None,
    target: str = "/wine",
    **fields: Any,
) -> Exchange:
    exchange = Exchange(
        method="POST",
        raw_target=target,
        headers=(),
        peer="192.0.2.1",
        scheme="http",
        body=NoBody(),  # type: ignore[arg-type]
        response=None,  # type: ignore[arg-type]
        arrived=ARRIVED,
    )
    exchange.request_id = new_trace_id()
    exchange.trace = continue_trace(None)
    exchange.address = parse_address("192.0.2.1")
    exchange.status = status
    exchange.ended = ARRIVED + took_s
    if model is not None:
        backend = Backend(version=version, url="http://backend.test")
        exchange.model = Model(name=model, backends=(backend,), traffic={version: 100}, policy=policy)
        exchange.backend = backend
        exchange.routed = ARRIVED + 0.00001
        if caller is not None:
            exchange.principal = Principal(id=caller, models=("*",))
            exchange.authenticated = ARRIVED + 0.00002
            exchange.permitted = ARRIVED + 0.00003
        share = (took_s - 0.002) / max(attempts, 1)
        for number in range(attempts):
            began = ARRIVED + 0.001 + number * share
            attempt = Attempt(began)
            attempt.connected = began + share * 0.1
            attempt.sent = began + share * 0.2
            attempt.ended = began + share
            if number == attempts - 1:
                attempt.answered = began + share * 0.9
                attempt.status = status
            else:
                attempt.failure = "upstream-broken"
            exchange.attempts.append(attempt)
    exchange.backend_server_timing = server_timing
    for name, value in fields.items():
        setattr(exchange, name, value)
    exchange.remote_ip = str(exchange.address or exchange.peer)
    return exchange

"""Authorize the request: whether its principal may do this to this model."""

from gateway.core.errors import (
    AddressNotAllowed,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    PayloadTooLarge,
)
from gateway.core.exchange import Exchange
from gateway.core.ip_network_set import NetworkSet
from gateway.core.principal import METADATA, SCORE, Verb

_PREDICT = frozenset({"POST", "GET", "HEAD"})
_READ = frozenset({"GET", "HEAD"})
_INFER = frozenset({"POST"})
_BELOW = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

_TOLD = {SCORE: "call", METADATA: "read about"}


class Authorize:
    """Refuse a request that is not allowed. The principal's rights, the model's networks and its methods decide."""

    def __init__(self, *, body_limit_bytes: int, report_only: bool = False) -> None:
        self._body_limit_bytes = body_limit_bytes
        self._report_only = report_only
        self.refused = 0  # for their address, since the start; including those that report-only mode let pass

    def __call__(self, exchange: Exchange) -> GatewayError | None:
        model, principal, target = exchange.model, exchange.principal, exchange.target
        method = exchange.method
        if target.open_inference:
            allowed, reads = (_INFER, False) if target.infers else (_READ, True)
        elif target.rest:
            allowed, reads = _BELOW, False
        else:
            allowed, reads = _PREDICT, method in _READ
        verb: Verb = METADATA if reads else SCORE
        if not principal.may(verb, model.name):
            return Forbidden(f'Your credentials do not allow you to {_TOLD[verb]} the model "{model.name}".')
        if method not in allowed:
            allow = ", ".join(sorted(allowed))
            return MethodNotAllowed(f"The methods allowed here are {allow}.", allow=allow)
        networks = exchange.compiled_policy.networks
        if networks is not None and (refused := self._check_address(exchange, networks)) is not None:
            return refused
        limit = model.policy.body_limit_bytes or self._body_limit_bytes
        exchange.body_limit_bytes = limit
        length = exchange.body.length
        if length is not None and length > limit:
            return PayloadTooLarge(limit)
        return None

    def _check_address(self, exchange: Exchange, networks: NetworkSet) -> AddressNotAllowed | None:
        address = exchange.address
        if address is not None and address in networks:
            return None
        self.refused += 1
        if not self._report_only:
            shown = "which is not known" if address is None else exchange.remote_ip
            return AddressNotAllowed(f"This model's policy does not allow calls from your address, {shown}.")
        exchange.report_only_refusals += (AddressNotAllowed.code,)
        return None

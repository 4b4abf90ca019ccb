"""May this principal do this to this model?"""

from gateway.core.errors import Forbidden, MethodNotAllowed, PayloadTooLarge
from gateway.core.exchange import Exchange
from gateway.core.principal import METADATA, SCORE, Verb

_PREDICT = frozenset({"POST", "GET", "HEAD"})
_READ = frozenset({"GET", "HEAD"})
_INFER = frozenset({"POST"})
_BELOW = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

_TOLD = {SCORE: "call", METADATA: "read about"}


class Authorize:
    def __init__(self, *, body_limit_bytes: int) -> None:
        self._body_limit_bytes = body_limit_bytes

    def __call__(self, exchange: Exchange) -> None:
        model, principal, target = exchange.model, exchange.principal, exchange.target
        if target.open_inference:
            allowed = _INFER if target.rest.endswith("/infer") else _READ
        else:
            allowed = _BELOW if target.rest else _PREDICT
        reads = allowed is _READ or (allowed is _PREDICT and exchange.method in _READ)
        verb: Verb = METADATA if reads else SCORE
        if not principal.may(verb, model.name):
            raise Forbidden(f'Your credentials do not allow you to {_TOLD[verb]} the model "{model.name}".')
        if exchange.method not in allowed:
            allow = ", ".join(sorted(allowed))
            raise MethodNotAllowed(f"Here you can use {allow}.", allow=allow)
        limit = model.policy.body_limit_bytes or self._body_limit_bytes
        exchange.body_limit_bytes = limit
        length = exchange.body.length
        if length is not None and length > limit:
            raise PayloadTooLarge(limit)

"""May this principal do this to this model?"""

from gateway.core.errors import Forbidden, MethodNotAllowed, PayloadTooLarge
from gateway.core.exchange import Exchange

_PREDICT = frozenset({"POST", "GET", "HEAD"})
_READ = frozenset({"GET", "HEAD"})
_INFER = frozenset({"POST"})
_BELOW = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Authorize:
    def __init__(self, *, body_limit_bytes: int) -> None:
        self._body_limit_bytes = body_limit_bytes

    def __call__(self, exchange: Exchange) -> None:
        model, principal, target = exchange.model, exchange.principal, exchange.target
        if not principal.may_call(model.name):
            raise Forbidden(f'Your key does not allow the model "{model.name}".')
        if target.open_inference:
            allowed = _INFER if target.rest.endswith("/infer") else _READ
        else:
            allowed = _BELOW if target.rest else _PREDICT
        if exchange.method not in allowed:
            allow = ", ".join(sorted(allowed))
            raise MethodNotAllowed(f"Here you can use {allow}.", allow=allow)
        limit = model.policy.body_limit_bytes or self._body_limit_bytes
        exchange.body_limit_bytes = limit
        length = exchange.body.length
        if length is not None and length > limit:
            raise PayloadTooLarge(limit)

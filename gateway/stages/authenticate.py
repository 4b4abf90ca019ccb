"""Authenticate the caller of a request, who may be anonymous at a public model.

A credential that is ours and not valid is refused there, too.
"""

import msgspec

from gateway.auth.authenticator_chain import AuthenticatorChain
from gateway.auth.base import Authentication
from gateway.core.errors import AddressNotAllowed, GatewayError, Unauthenticated
from gateway.core.exchange import Exchange
from gateway.core.header_classification import AUTHORIZATION
from gateway.core.needs_wait_sentinel import NeedsWait
from gateway.core.principal import ANONYMOUS, CALLER_VERBS, PIN, Principal


class Authenticate:
    """Authenticate the caller of a request.

    This fills in the principal. A credential that is ours but not valid is refused, even where the model needs none.
    """

    def __init__(self, chain: AuthenticatorChain) -> None:
        self._chain = chain

    def try_nowait(self, exchange: Exchange) -> GatewayError | NeedsWait | None:
        """Authenticate without waiting, if possible.

        It is possible where the answer is cached. NEEDS_WAIT: `await` the stage itself.
        """
        found = self._chain.try_nowait(exchange.head)
        if found is None or isinstance(found, Authentication):
            return self._accept(exchange, found)
        return found

    async def __call__(self, exchange: Exchange) -> GatewayError | None:
        return self._accept(exchange, await self._chain(exchange.head))

    def _accept(self, exchange: Exchange, authentication: Authentication | None) -> GatewayError | None:
        model = exchange.model
        if authentication is not None and authentication.outside_networks:
            exchange.report_only_refusals += (AddressNotAllowed.code,)
        if model.policy.access == "public":
            exchange.principal = (
                ANONYMOUS
                if authentication is None
                else _at_public_model(authentication.principal, model.name)
            )
        elif authentication is None:
            return Unauthenticated(
                "Send an API key in the header X-Api-Key, or a key or token as Authorization: Bearer …"
            )
        else:
            exchange.principal = authentication.principal
        authorization = exchange.head.read[AUTHORIZATION]
        if authorization is not None:
            # What is meant for us never goes on, also where another credential was the one that counted.
            spent = authentication is not None and authentication.consumed_authorization
            exchange.consumed_authorization = spent or self._chain.owns_authorization(authorization)
        return None


def _at_public_model(principal: Principal, model: str) -> Principal:
    """A key that was made for other models does not take away what anybody may do."""
    verbs = (*CALLER_VERBS, PIN) if principal.may(PIN, model) else CALLER_VERBS
    return msgspec.structs.replace(principal, models=(model,), verbs=verbs)

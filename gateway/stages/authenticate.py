"""Find out who the caller is, by the credentials that the model takes."""

import msgspec

from gateway.auth.base import LATER, Proof
from gateway.auth.chain import Chain
from gateway.core.errors import AddressNotAllowed, Unauthenticated
from gateway.core.exchange import Exchange
from gateway.core.headers import AUTHORIZATION
from gateway.core.principal import CALLER_VERBS, Principal

ANONYMOUS = Principal(id="anonymous", models=("*",))


class Authenticate:
    """Fill in the principal. A credential that is ours and bad is refused even where none is needed."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def at_once(self, exchange: Exchange) -> bool:
        """Do it without waiting, where everything needed is remembered; False: `await` the stage itself."""
        proof = self._chain.at_once(exchange.head)
        if proof is LATER:
            return False
        self._accept(exchange, proof)
        return True

    async def __call__(self, exchange: Exchange) -> None:
        self._accept(exchange, await self._chain(exchange.head))

    def _accept(self, exchange: Exchange, proof: Proof | None) -> None:
        model = exchange.model
        if proof is not None and proof.elsewhere:
            exchange.spared += (AddressNotAllowed.code,)
        if model.policy.access == "public":
            # A key that was made for other models does not take away what anybody may do.
            exchange.principal = (
                ANONYMOUS
                if proof is None
                else msgspec.structs.replace(proof.principal, models=(model.name,), verbs=CALLER_VERBS)
            )
        elif proof is None:
            raise Unauthenticated(
                "Send an API key in the header X-Api-Key, or a key or token as Authorization: Bearer …"
            )
        else:
            exchange.principal = proof.principal
        authorization = exchange.head.read[AUTHORIZATION]
        if authorization is not None:
            # What is meant for us never goes on, also where another credential was the one that counted.
            spent = proof is not None and proof.spent_authorization
            exchange.spent_authorization = spent or self._chain.claims(authorization)

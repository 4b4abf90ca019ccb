"""Find out who the caller is, by the credentials that the model takes."""

from gateway.auth.chain import Chain
from gateway.core.errors import Unauthenticated
from gateway.core.exchange import Exchange
from gateway.core.headers import AUTHORIZATION
from gateway.core.keys import bearer_key
from gateway.core.principal import Principal

ANONYMOUS = Principal(id="anonymous", models=("*",))


class Authenticate:
    """Fill in the principal. A credential that is ours and bad is refused even where none is needed."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def __call__(self, exchange: Exchange) -> None:
        model = exchange.model
        proof = await self._chain(exchange.head)
        if model.policy.access == "public":
            # A key that was made for other models does not take away what anybody may do.
            exchange.principal = (
                ANONYMOUS
                if proof is None
                else Principal(id=proof.principal.id, label=proof.principal.label, models=(model.name,))
            )
        elif proof is None:
            raise Unauthenticated(
                "Send an API key in the header X-Api-Key, or as Authorization: Bearer <key>."
            )
        else:
            exchange.principal = proof.principal
        authorization = exchange.head.read[AUTHORIZATION]
        if authorization is not None:
            # A key of ours never goes on, also where another credential was the one that counted.
            exchange.spent_authorization = (proof is not None and proof.spent_authorization) or bearer_key(
                authorization
            ) is not None

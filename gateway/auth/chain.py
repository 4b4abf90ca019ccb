"""Try the authenticators in their order; the first that knows the credential decides."""

from collections.abc import Sequence

from gateway.auth.base import Authenticator, Proof
from gateway.core.headers import RequestHead


class Chain:
    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def __call__(self, head: RequestHead) -> Proof | None:
        for authenticator in self._authenticators:
            proof = await authenticator(head)
            if proof is not None:
                return proof
        return None

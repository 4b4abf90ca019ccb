"""Try the authenticators in their order; the first that knows the credential decides."""

from collections.abc import Sequence

from gateway.auth.base import Authenticator, Later, Proof
from gateway.core.headers import RequestHead


class Chain:
    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    def at_once(self, head: RequestHead) -> Proof | Later | None:
        """The answer where it is known without waiting. One that must wait is not jumped over: it may be the one."""
        for authenticator in self._authenticators:
            proof = authenticator.at_once(head)
            if proof is not None:
                return proof
        return None

    def claims(self, authorization: bytes) -> bool:
        return any(authenticator.claims(authorization) for authenticator in self._authenticators)

    async def start(self) -> None:
        for authenticator in self._authenticators:
            await authenticator.start()

    async def stop(self) -> None:
        for authenticator in self._authenticators:
            await authenticator.stop()

    async def __call__(self, head: RequestHead) -> Proof | None:
        for authenticator in self._authenticators:
            proof = await authenticator(head)
            if proof is not None:
                return proof
        return None

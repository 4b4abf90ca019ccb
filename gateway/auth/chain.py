"""Try the authenticators in their order; the first that knows the credential decides."""

from collections.abc import Sequence

from gateway.auth.base import LATER, Authenticator, Later, Proof
from gateway.core.errors import AddressNotAllowed
from gateway.core.headers import RequestHead


class Chain:
    """With `trial`, credentials may be used from everywhere; who would be refused is counted, and marked in the proof."""

    def __init__(self, authenticators: Sequence[Authenticator], *, trial: bool = False) -> None:
        self._authenticators = tuple(authenticators)
        self._trial = trial
        self.refused = 0  # for their address, since the start; those whom a trial let pass included

    def at_once(self, head: RequestHead) -> Proof | Later | None:
        """The answer where it is known without waiting. One that must wait is not jumped over: it may be the one."""
        for authenticator in self._authenticators:
            proof = authenticator.at_once(head)
            if proof is not None:
                return proof if proof is LATER else self._used_where_it_may_be(proof, head)
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
                return self._used_where_it_may_be(proof, head)
        return None

    def _used_where_it_may_be(self, proof: Proof, head: RequestHead) -> Proof:
        """Here, so that it holds for models, for the list of models and for the operators' pages alike."""
        networks = proof.principal.networks
        if networks is None or (head.address is not None and head.address in networks):
            return proof
        self.refused += 1
        if self._trial:
            return proof._replace(elsewhere=True)
        raise AddressNotAllowed(f"Your credentials may not be used from your address, {head.address}.")

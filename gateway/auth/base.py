"""The interface of an authenticator, which identifies the caller of a request. The credentials are in the request's head."""

from abc import ABC, abstractmethod

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.header_classification import RequestHead
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.core.principal import Principal


class Authentication(msgspec.Struct, frozen=True):
    """A successful authentication, with its principal. `consumed_authorization`: its credential came in Authorization."""

    principal: Principal
    consumed_authorization: bool  # it came in Authorization, which must not go on to the backend
    outside_networks: bool = False  # it may not be used from the caller's address, which a trial lets pass


class Authenticator(ABC):
    """The interface of an authenticator.

    It identifies the caller by one kind of credential. It returns None for "not my kind of credential, ask the next", and
    raises Unauthenticated for "mine, and not valid". The difference matters: a broken credential must never fall through to
    a weaker kind.
    """

    def try_nowait(self, head: RequestHead) -> Authentication | GatewayError | NeedsWait | None:  # noqa: ARG002
        """Authenticate a request where that needs no waiting.

        Else NEEDS_WAIT: await `__call__`. Nearly all requests need none. It may return its refusal instead of raising it,
        which costs a fraction.
        """
        return NEEDS_WAIT

    @abstractmethod
    async def __call__(self, head: RequestHead) -> Authentication | None:
        """The answer; may wait for a registry or for an issuer's keys."""

    def owns_authorization(self, authorization: bytes) -> bool:  # noqa: ARG002
        """Whether this Authorization value is meant for the gateway.

        It must not be forwarded to a backend then. Asked when the caller was authenticated by another credential.
        """
        return False

    async def start(self) -> None:  # noqa: B027  (most need nothing)
        """Open what the authenticator needs, such as connections. Called once, before the first request."""

    async def stop(self) -> None:  # noqa: B027
        """Close what `start` opened."""


def raise_refusal(found: Authentication | GatewayError | None) -> Authentication | None:
    """Return `found`, or raise it where it is a refusal."""
    if isinstance(found, GatewayError):
        raise found
    return found

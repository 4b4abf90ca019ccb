"""What an authenticator is: it looks at the credentials in a request's head and says whose they are."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import Final, Literal, NamedTuple

from gateway.core.headers import RequestHead
from gateway.core.principal import Principal


class Proof(NamedTuple):
    principal: Principal
    spent_authorization: bool  # it came in Authorization, which must not go on to the backend
    elsewhere: bool = False  # it may not be used from the caller's address, which a trial lets pass


class _Later(Enum):
    LATER = "later"


LATER: Final = _Later.LATER
Later = Literal[_Later.LATER]


class Authenticator(ABC):
    """None means "not my kind of credential, ask the next"; Unauthenticated means "mine, and bad".

    The difference matters: a broken credential must never fall through to a weaker kind.
    """

    def at_once(self, head: RequestHead) -> Proof | Later | None:  # noqa: ARG002
        """The answer where it is known without waiting: the way of nearly all requests. LATER: ask `__call__`."""
        return LATER

    @abstractmethod
    async def __call__(self, head: RequestHead) -> Proof | None:
        """The answer; may wait for a registry or for an issuer's keys."""

    def claims(self, authorization: bytes) -> bool:  # noqa: ARG002
        """Whether this value of Authorization is meant for the gateway, so that it must not go on to a backend.

        Asked where another credential was the one that counted.
        """
        return False

    async def start(self) -> None:  # noqa: B027  (most need nothing)
        """Open what is needed. Called once, before the first request."""

    async def stop(self) -> None:  # noqa: B027
        """Close it."""

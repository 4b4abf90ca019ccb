"""What an authenticator is: it looks at the credentials in a request's head and says whose they are."""

from typing import NamedTuple, Protocol

from gateway.core.headers import RequestHead
from gateway.core.principal import Principal


class Proof(NamedTuple):
    principal: Principal
    spent_authorization: bool  # it came in Authorization, which must not go on to the backend


class Authenticator(Protocol):
    async def __call__(self, head: RequestHead) -> Proof | None:
        """Return None for "not my kind of credential, ask the next"; raise Unauthenticated for "mine, and bad".

        The difference matters: a broken credential must never fall through to a weaker kind.
        """

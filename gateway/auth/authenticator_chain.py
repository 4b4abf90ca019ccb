"""A chain of authenticators, tried in order. The first that recognizes the credential decides."""

import logging
from collections.abc import Sequence

import msgspec

from gateway.auth.base import Authentication, Authenticator, raise_refusal
from gateway.core.errors import AddressNotAllowed, GatewayError, TooManyRequests, Unauthenticated
from gateway.core.header_classification import RequestHead
from gateway.core.log_throttle import LogThrottle
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.registry.lookup_quota_per_client_ip import ClientLookupQuota

_throttled_log = LogThrottle(logging.getLogger(__name__))


class AuthenticatorChain:
    """Asks authenticators in order.

    The first that recognizes the credential decides. With `networks_report_only`, a credential may be used from any
    address: a use outside its networks is only counted, and marked as `outside_networks` in the result.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        *,
        networks_report_only: bool = False,
        address_quota: ClientLookupQuota | None = None,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._address_quota = address_quota  # of look-ups in vain, by address
        self._networks_report_only = networks_report_only
        self.refused = 0  # for their address, since the start; including those that report-only mode let pass

    def try_nowait(self, head: RequestHead) -> Authentication | GatewayError | NeedsWait | None:
        """Authenticate a request without waiting, where that is possible.

        Returns NEEDS_WAIT elsewhere. An authenticator that must wait is not skipped: the credential may be its
        own.
        """
        for authenticator in self._authenticators:
            found = authenticator.try_nowait(head)
            if found is not None:
                return self._check_networks(found, head) if isinstance(found, Authentication) else found
        return None

    def owns_authorization(self, authorization: bytes) -> bool:
        return any(authenticator.owns_authorization(authorization) for authenticator in self._authenticators)

    async def start(self) -> None:
        for authenticator in self._authenticators:
            await authenticator.start()

    async def stop(self) -> None:
        for authenticator in self._authenticators:
            await authenticator.stop()

    async def __call__(self, head: RequestHead) -> Authentication | None:
        """Authenticate; None where no authenticator recognizes a credential.

        Raises Unauthenticated for a credential that is not valid, AddressNotAllowed where it may not be used from here, and
        TooManyRequests where this address has sent too many unknown credentials.
        """
        known = self.try_nowait(head)
        if known is not NEEDS_WAIT:
            return raise_refusal(known)
        if self._address_quota is None:
            return await self._look_up(head)
        if not self._address_quota.take(head.address):
            _throttled_log.warning(
                "credentials",
                "%s sends credentials that nobody knows; they are looked up no more for now "
                "(auth.unknown_per_s)",
                head.address,
            )
            raise TooManyRequests(
                "Your address has sent too many unknown credentials. Try again in a moment, with valid ones."
            )
        in_vain = False
        try:
            return await self._look_up(head)
        except Unauthenticated:
            in_vain = True
            raise
        finally:
            if not in_vain:
                self._address_quota.give_back(head.address)

    async def _look_up(self, head: RequestHead) -> Authentication | None:
        for authenticator in self._authenticators:
            authentication = await authenticator(head)
            if authentication is not None:
                return raise_refusal(self._check_networks(authentication, head))
        return None

    def _check_networks(
        self, authentication: Authentication, head: RequestHead
    ) -> Authentication | AddressNotAllowed:
        """Here, so that it holds for models, for the list of models and for the operators' pages alike."""
        networks = authentication.principal.networks
        if networks is None or (head.address is not None and head.address in networks):
            return authentication
        self.refused += 1
        if self._networks_report_only:
            return msgspec.structs.replace(authentication, outside_networks=True)
        shown = head.address_text or "which is not known"
        return AddressNotAllowed(f"Your credentials may not be used from your address, {shown}.")

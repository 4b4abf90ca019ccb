"""Provides Google ID tokens for backends on Cloud Run.

They come from Google's metadata server, and authenticate the gateway to backends. They go into X-Serverless-Authorization,
which Cloud Run checks and takes away, so that Authorization can pass through.
"""

import asyncio
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

from gateway.core.errors import UpstreamUnavailable
from gateway.core.header_classification import CRLF
from gateway.core.read_at_most import read_at_most
from gateway.thread_and_task_supervisor import Supervisor

_log = logging.getLogger(__name__)

_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/identity"
_TIMEOUT_S: Final = 3.0
_REFRESH_S: Final = 300.0  # from then on before its end, a new one is fetched in the background;
_STALE_S: Final = 30.0  # from then on, requests wait for it
_RETRY_S: Final = 15.0  # the server may give out the same token again until shortly before its end
_MAX_TOKEN_BYTES: Final = 8 * 1024


class _Token(NamedTuple):
    fields: tuple[bytes, ...]
    ends_at: float
    fetched_at: float


class _Claims(msgspec.Struct):
    exp: float


class IdTokenProvider:
    """Provides ID tokens for backends.

    There is one for each audience, fetched once for all who wait for it, and never sent over plain HTTP. The audience is
    the backend's origin, or the one it was registered with, if `may_choose_audience` allows that for its URL.
    """

    def __init__(
        self,
        *,
        metadata_host: str = "metadata.google.internal",
        may_choose_audience: Callable[[str], bool] = lambda _: True,
        now: Callable[[], float] = time.time,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._may_choose_audience = may_choose_audience
        self._url = f"http://{metadata_host}{_PATH}"
        self._now = now
        self._tokens: dict[str, _Token] = {}
        self._fetching: dict[str, asyncio.Task[_Token]] = {}
        self._origins: dict[str, str] = {}
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False
        )

    async def stop(self) -> None:
        for task in list(self._fetching.values()):
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)
        await self._session.close()

    def cached_fields(self, url: str, audience: str = "") -> Sequence[bytes] | None:
        """The header field with a cached ID token for the backend. None: await `fetch_fields`."""
        origin = self._origins.get(url)
        if origin is None:
            parts = urlsplit(url)
            origin = self._origins[url] = f"https://{parts.netloc}" if parts.scheme == "https" else ""
        if not origin:
            return ()
        if audience and audience != origin and not self._may_choose_audience(url):
            raise UpstreamUnavailable(
                "The gateway may not send this backend an ID token: the settings do not allow its audience."
            )
        audience = audience or origin
        token = self._tokens.get(audience)
        now = self._now()
        if token is None or token.ends_at - now <= _STALE_S:
            return None
        if token.ends_at - now <= _REFRESH_S and now - token.fetched_at >= _RETRY_S:
            _ = self._start(audience)
        return token.fields

    async def fetch_fields(self, url: str, audience: str = "") -> Sequence[bytes]:
        """Fetch the header field with an ID token for the backend.

        The token comes from the metadata server where it is not cached. Raises UpstreamUnavailable.
        """
        found = self.cached_fields(url, audience)
        if found is not None:
            return found
        audience = audience or self._origins[url]
        try:
            # Shielded: one caller who leaves must not take the token from the others who wait for it.
            token = await asyncio.shield(self._start(audience))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamUnavailable("The gateway could not get an ID token for the backend.") from error
        return token.fields

    def _start(self, audience: str) -> asyncio.Task[_Token]:
        task = self._fetching.get(audience)
        if task is None:
            task = self._supervisor.start_one_off_task(
                "ID tokens", self._fetch(audience), expected=(aiohttp.ClientError, OSError, ValueError)
            )
            self._fetching[audience] = task
            task.add_done_callback(lambda done: self._ended(audience, done))
        return task

    def _ended(self, audience: str, task: asyncio.Task[_Token]) -> None:
        self._fetching.pop(audience, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("no ID token for %s: %s", audience, type(task.exception()).__name__)
            known = self._tokens.get(audience)
            if known is not None:
                self._tokens[audience] = known._replace(fetched_at=self._now())

    async def _fetch(self, audience: str) -> _Token:
        async with self._session.get(
            self._url,
            params={"audience": audience, "format": "full"},
            headers={"Metadata-Flavor": "Google"},
            allow_redirects=False,
        ) as response:
            body = (await read_at_most(response.content.iter_any(), _MAX_TOKEN_BYTES)).strip()
            # Without this field, something else answers in the metadata server's place.
            if response.status != 200 or response.headers.get("Metadata-Flavor") != "Google":
                raise ValueError(f"the metadata server answered {response.status}")
        token = _Token(
            (b"X-Serverless-Authorization: ", b"Bearer " + body, CRLF), _ends_at(body), self._now()
        )
        self._tokens[audience] = token
        return token


def _ends_at(token: bytes) -> float:
    parts = token.split(b".")
    if len(parts) != 3 or len(token) > _MAX_TOKEN_BYTES or not all(33 <= byte <= 126 for byte in token):
        raise ValueError("what the metadata server sent is no token")
    try:
        return msgspec.json.decode(
            urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)), type=_Claims
        ).exp
    except msgspec.MsgspecError:
        raise ValueError("what the metadata server sent is no token") from None

"""The credentials with which a command calls a backend: header fields that the user gives, or an ID token."""

import asyncio
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer

from gateway.cli.support.console import EX_USAGE, Failure

EX_NOPERM = 77
_TIMEOUT_S = 5.0
_ASKS = frozenset({401, 403})

HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header", help="NAME:VALUE to send with every request, such as credentials; may be repeated."
    ),
]


def parse_header(text: str) -> tuple[str, str]:
    """Parse a header field written as `Name: value`. Raises Failure."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable():
        raise Failure("--header is written NAME:VALUE", code=EX_USAGE)
    return name.strip(), value.strip()


def is_cloud_run(url: str) -> bool:
    """Whether `url` is an address of Cloud Run.

    Only there may an ID token be sent: a stranger who gets one could use it in our name.
    """
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(".run.app")


async def headers_or_id_token(url: str, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The header fields with credentials for `url`: `headers` if given, or else an ID token where Cloud Run requires one.

    Empty where the backend requires none. Raises CredentialsRefused where a server elsewhere requires some, and Failure where
    no token can be fetched.
    """
    if headers or await _status_of(url) not in _ASKS:
        return tuple(headers)
    if not is_cloud_run(url):
        raise credentials_refused(url)
    from gateway.deploy.id_token import fetch_id_token
    from gateway.deploy.target import DeployError

    parts = urlsplit(url)
    try:
        token = await asyncio.to_thread(fetch_id_token, f"{parts.scheme}://{parts.netloc}")
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from None
    return (("X-Serverless-Authorization", f"Bearer {token}"),)


class CredentialsRefused(Failure):
    """The backend refused our credentials.

    It answered 401 or 403. A server of another kind may answer so for any path that it does not know.
    """


def credentials_refused(url: str) -> CredentialsRefused:
    """The error for a backend that refused our credentials. It may also require some that we did not give."""
    if is_cloud_run(url):
        hint = "give the account that is logged in here the role roles/run.invoker on the service, or send other credentials with --header"
    else:
        hint = (
            "send them: --header 'Authorization: Bearer …'; a service of another kind may answer so to every path that it does not "
            "know: --path PATH --version VERSION registers it"
        )
    return CredentialsRefused(
        f"the backend at {url} asks for credentials that we do not have", hint=hint, code=EX_NOPERM
    )


async def _status_of(url: str) -> int:
    """How it answers somebody who shows nothing; 0 where it does not answer, which others tell better."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(f"{url}/v2/health/live", allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0

"""Turn connection errors into plain text. Among them are refused connections, time-outs, DNS and TLS errors."""

import errno
import os
import socket
from urllib.parse import urlsplit


def connection_error_text(error: BaseException, url: str, timeout_s: float) -> str:
    """Why `url` could not be reached, as one clause. `timeout_s`: the seconds that it had."""
    import aiohttp

    parts = urlsplit(url)
    place = parts.netloc or url
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} seconds"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no address is known for the host {parts.hostname}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {place} is not valid here: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{place} does not speak TLS; is it http:// instead of https://?"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{place} closed the connection without an answer"
    if isinstance(error, OSError):
        return _of_system(error, place)
    return f"{place} does not answer as HTTP servers do"


def _of_system(error: OSError, place: str) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"nobody listens at {place} (connection refused)"
    if isinstance(error, socket.gaierror):
        return f"no address is known for the host of {place}"
    if error.errno == errno.ECONNRESET:
        return f"{place} closed the connection without an answer"
    return f"{place}: {os.strerror(error.errno)}" if error.errno else f"{place} cannot be reached"

"""The TLS contexts for connections to backends. They resume sessions, and verify the backend's certificate."""

import asyncio
import ssl
from typing import Any


class SessionResumingContext(ssl.SSLContext):
    """A TLS context that resumes the backend's last session. For a new connection this saves a key exchange."""

    session: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        if self.session is not None and kwargs.get("session") is None:
            kwargs["session"] = self.session
        return super().wrap_bio(*args, **kwargs)

    def remember_session(self, transport: asyncio.Transport | None) -> None:
        """Remember the TLS session of a connection.

        Call it once the connection has received a response: in TLS 1.3 the session comes after the handshake.
        """
        connection = None if transport is None else transport.get_extra_info("ssl_object")
        if connection is not None and connection.session is not None:
            self.session = connection.session


def backend_tls_context(extra_ca_file: str = "") -> SessionResumingContext:
    """A TLS context for one backend. `extra_ca_file` is trusted in addition to the system's authorities."""
    context = SessionResumingContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies name and chain
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if extra_ca_file:
        context.load_verify_locations(extra_ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_ca_file(path: str) -> None:
    """Check that a file of certificates can be used.

    This is at the start rather than at the first https request. Raises ValueError.
    """
    try:
        backend_tls_context(path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"upstream.ca_file: {path}: {error}") from None

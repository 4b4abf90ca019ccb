"""Mask what may be secret in a URL. It is masked before the URL is shown: the password, and parameters such as tokens."""

import re
from urllib.parse import unquote, urlsplit, urlunsplit


def mask_url(text: str) -> str:
    """`text` with `***` for what may be secret in a URL.

    That is the password (or a lone user name), and parameters with names such as token or key.
    """
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:  # no URL after all, and nobody can say where its password ends
        scheme, _, rest = text.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://***"
    who, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = who.partition(":")
        text = urlunsplit(parts._replace(netloc=f"{name}:***@{host}" if colon else f"***@{host}"))
    return _PARAMETER.sub(_mask_parameter, text)


_PARAMETER = re.compile(r"([?&;#])([^=?&;#]*)=([^&;#]*)")
_SOUNDS_SECRET = re.compile(r"pass|pwd|secret|token|key|auth|cred|sig", re.IGNORECASE)


def _mask_parameter(found: re.Match[str]) -> str:
    secret = _SOUNDS_SECRET.search(unquote(found[2]))
    return f"{found[1]}{found[2]}=***" if secret else found[0]

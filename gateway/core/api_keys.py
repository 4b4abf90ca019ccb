"""Make, check and digest API keys.

A key is `chips_` + 32 random characters + 6 of checksum, letters and digits only. The prefix lets secret scanners find
a leaked key; the checksum lets them, and us, tell a key from a look-alike without asking the registry. 32 characters of
62 are 190 bits, so a plain SHA-256 is a safe way to store one: there is nothing to guess, and a slow hash would only
cost every request.
"""

import binascii
import hashlib
import re
import secrets
import string
from hmac import compare_digest

PREFIX = "chips_"
_ALPHABET = string.digits + string.ascii_letters
_RANDOM_LENGTH = 32
_CHECKSUM_LENGTH = 6
_BEARER_KEY = b"bearer " + PREFIX.encode("ascii")
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}")


def make_key() -> str:
    """Make a new API key. It comes from the operating system's randomness."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return PREFIX + body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether `key` has the form of an API key. That includes its checksum. It may still be unknown."""
    if not _KEY.fullmatch(key):
        return False
    body = key[len(PREFIX) : -_CHECKSUM_LENGTH]
    return key.endswith(_checksum(body))


def digest_key(key: str) -> str:
    """The digest of `key`, under which the registry keeps it. It is 64 hexadecimal digits of SHA-256."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


class LastKeyDigest:
    """A cache of the digest of the key that a connection sent last.

    A client's key is hashed only once. The comparison takes equally long for any key of the same length, because several
    callers may share a proxy's connection. The key is kept as long as the connection. Whether the key is revoked is still
    checked for each request.
    """

    __slots__ = ("_digest", "_key")

    def __init__(self) -> None:
        self._key = b""
        self._digest = digest_key_bytes(b"")

    def digest(self, key: bytes) -> str:
        """The digest of `key`, from the cache where it is the last one. It is `digest_key_bytes(key)`."""
        if not compare_digest(key, self._key):
            self._digest = digest_key_bytes(key)
            self._key = key
        return self._digest


def digest_key_bytes(key: bytes) -> str:
    """The digest of a key, as `digest_key`, from the bytes of a header field."""
    return hashlib.sha256(key).hexdigest()


def key_id(digest: str) -> str:
    """The short id of a key. Logs and the command line use it: the first twelve digits of the key's digest."""
    return digest[:12]


def bearer_key(authorization: bytes) -> bytes | None:
    """The API key in a Bearer Authorization field's value. None where it holds something else (RFC 6750 section 2.1)."""
    if authorization[: len(_BEARER_KEY)].lower() != _BEARER_KEY:
        return None
    return authorization[len("bearer ") :].strip()


def _checksum(body: str) -> str:
    number = binascii.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits

"""SSH signatures, made and verified by OpenSSH's own program, ssh-keygen.

It is run as `ssh-keygen -Y sign` and `-Y verify` (ssh-keygen(1), PROTOCOL.sshsig). So every kind of key that people have
works, in files, in an agent, and in hardware.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

NAMESPACE: Final = "chips-approval"  # a signature that was made for anything else does not count
_SIGN_S: Final = 120.0  # somebody may have to type a passphrase or touch a key
_VERIFY_S: Final = 30.0
_MAX_SIGNATURE_BYTES: Final = 20_000
_KNOWN: Final = 1000  # good signatures, which a page that is open verifies every few seconds


class SshKeygenError(Exception):
    """`ssh-keygen` cannot be run, or did not sign. The text says why."""


def public_key_of(key: Path) -> str:
    """The public key (type and base64) of an SSH key file. The file holds the private key, or the public one of a key in an agent."""
    if not key.name:
        raise SshKeygenError(f"{str(key)!r} is not the file of an SSH key")
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    try:
        text = (
            public.read_text(encoding="utf-8")
            if public.exists()
            else _run(["-y", "-f", str(key)], b"").decode()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise SshKeygenError(f"the key {key} cannot be read: {error}") from None
    words = text.split()
    if len(words) < 2:
        raise SshKeygenError(f"{public} is not an SSH public key")
    return f"{words[0]} {words[1]}"


def sign(message: bytes, key: Path) -> bytes:
    """Sign `message` with an SSH key, as ssh-keygen does. Raises SshKeygenError."""
    return _run(["-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)], message, timeout_s=_SIGN_S)


def has_signed(message: bytes, signature: bytes, principal: str, public_keys: Sequence[str]) -> bool:
    """Whether one of `public_keys` signed the message. Raises SshKeygenError where nothing can be verified."""
    if not public_keys or len(signature) > _MAX_SIGNATURE_BYTES:
        return False
    try:
        _verify(message, signature, principal, tuple(public_keys))
    except SshKeygenRefused:
        return False
    return True


@lru_cache(maxsize=_KNOWN)  # what raises is not kept
def _verify(message: bytes, signature: bytes, principal: str, public_keys: tuple[str, ...]) -> None:
    """Raises SshKeygenRefused where the signature is not good, and SshKeygenError where nothing can be verified."""
    with tempfile.TemporaryDirectory(prefix="chips-sign-off-") as name:
        allowed, signed = Path(name) / "allowed_signers", Path(name) / "signature"
        allowed.write_text(
            "".join(f'{principal} namespaces="{NAMESPACE}" {key}\n' for key in public_keys), encoding="utf-8"
        )
        signed.write_bytes(signature)
        _run(
            ["-Y", "verify", "-f", str(allowed), "-I", principal, "-n", NAMESPACE, "-s", str(signed)], message
        )


class SshKeygenRefused(SshKeygenError):
    """`ssh-keygen` refused to sign, or to accept a signature."""


def _run(arguments: list[str], message: bytes, *, timeout_s: float = _VERIFY_S) -> bytes:
    try:
        ended = subprocess.run(  # noqa: S603
            ["ssh-keygen", *arguments],  # noqa: S607  (the user's own, as every use of git is)
            input=message,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise SshKeygenError("ssh-keygen is not installed: apt install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise SshKeygenError(f"ssh-keygen did not end within {timeout_s:.0f} s") from None
    if ended.returncode != 0:
        raise SshKeygenRefused(f"ssh-keygen: {ended.stderr.decode(errors='replace').strip()[:300]}")
    return ended.stdout

"""Open the audit's second place and keys, as the settings name them. The keys are the signing key and the trusted keys."""

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.audit.anchor_store import AnchorStore, open_anchor_store
from gateway.cli.support.console import EX_CONFIG, Failure
from gateway.settings import Settings

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Key

    from gateway.audit.anchors import AnchorReport


def configured_second_place(settings: Settings) -> AnchorStore | None:
    """The second place that the settings name. None where none is set."""
    return open_anchor_store(settings.audit.second_place) if settings.audit.second_place else None


def open_signer(settings: Settings) -> "CryptoSigner":
    """Open the key that signs the audit's heads. Raises Failure, also where the settings name none."""
    from gateway.audit.dsse_envelope import SigningError, read_signer

    if not settings.audit.signing_key:
        raise Failure(
            "there is no key to sign the head of the history with",
            hint="set audit.signing_key; openssl genpkey -algorithm ed25519 -out FILE makes one",
            code=EX_CONFIG,
        )
    try:
        return read_signer(Path(settings.audit.signing_key))
    except SigningError as error:
        raise Failure(f"audit.signing_key: {error}", code=EX_CONFIG) from None


def read_trusted_pem_keys(settings: Settings) -> "list[Key]":
    """Read the trusted public keys of the audit, from files in PEM. Only their signatures of heads count.

    Where the settings name none, that of the signing key is the only one. Raises Failure.
    """
    from gateway.audit.dsse_envelope import SigningError, read_public_key

    if not settings.audit.trusted_keys:
        return [open_signer(settings).public_key]
    try:
        return [read_public_key(Path(file)) for file in settings.audit.trusted_keys]
    except SigningError as error:
        raise Failure(f"audit.trusted_keys: {error}", code=EX_CONFIG) from None


async def read_second_place(place: AnchorStore, settings: Settings) -> "AnchorReport":
    """Read the anchors that the audit's second place holds.

    They anchor the registry's history; what is wrong with them is in the report too.
    """
    from gateway.audit.anchors import read_anchors

    return await read_anchors(place, read_trusted_pem_keys(settings))

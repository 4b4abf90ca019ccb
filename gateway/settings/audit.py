"""The settings of the audit.

They name the second place where signed heads of the history are kept, and the keys that sign and check them.
"""

from typing import Annotated

from msgspec import Meta

from gateway.settings.base_group import Group


class Audit(Group, frozen=True):
    """Settings of the audit. They name the second place of the history's heads, and its keys."""

    second_place: Annotated[
        str,
        Meta(
            description="Where signed heads of the history are kept: gs://bucket/prefix with a locked retention policy, or a folder."
        ),
    ] = ""
    signing_key: Annotated[
        str,
        Meta(
            description="File of the private key (Ed25519 or P-256, PEM) that signs them; gateways and commands."
        ),
    ] = ""
    trusted_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Files of public keys (PEM) whose heads count in `chips audit --verify`. None: that of the signing key."
        ),
    ] = ()
    registry_id: Annotated[
        str,
        Meta(
            description="Id of the environment's registry. `chips audit --verify` shows it, and finds another registry in its place."
        ),
    ] = ""
    every_s: Annotated[
        float, Meta(ge=1, description="How often a gateway writes the head there, where it has changed.")
    ] = 600.0

"""The settings of automatic rollouts."""

from typing import Annotated

from msgspec import Meta

from gateway.settings.base_group import Group


class Rollouts(Group, frozen=True):
    """Settings of automatic rollouts (`chips canary`)."""

    controller: Annotated[
        bool,
        Meta(
            description="Whether this gateway also takes the steps of rollouts; where `chips rollouts run` does, it need not."
        ),
    ] = True
    figures: Annotated[
        str,
        Meta(
            description="URL of the store that gateways report to while a rollout runs, where they may not write to the registry; empty: the registry."
        ),
    ] = ""
    lease_s: Annotated[
        float,
        Meta(
            ge=1,
            le=300,
            description="How long a controller that is gone keeps the others waiting; the same for all of them.",
        ),
    ] = 10.0
    webhook_secret_file: Annotated[
        str, Meta(description="File with the secret that signs what a rollout's webhook gets.")
    ] = ""

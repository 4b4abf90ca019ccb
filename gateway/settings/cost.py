"""The settings of usage, cost and budgets."""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.settings.base_group import Group


class Cost(Group, frozen=True):
    """Settings of usage, cost and budgets (`chips cost`, `chips budget`)."""

    usage: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether this gateway writes down what each caller used: to rollouts.figures, or to the registry. "
            "`auto`: yes, unless the registry is Firestore and rollouts.figures is empty, because gateways may only read it there."
        ),
    ] = "auto"
    interval_s: Annotated[
        float,
        Meta(
            ge=1,
            le=300,
            description="How often it is written, and budgets are looked at. A gateway that is killed loses one interval.",
        ),
    ] = 15.0
    billing_table: Annotated[
        str,
        Meta(
            description="BigQuery table of Google's billing export, for `chips cost`: PROJECT.DATASET.gcp_billing_export_v1_… with its number."
        ),
    ] = ""
    billing_project: Annotated[
        str,
        Meta(description="Project whose bill `chips cost` reads there. Empty: the project of that table."),
    ] = ""

"""Mask what is secret in a change of the registry before a person or a log reads it."""

from typing import Any

import msgspec

from gateway.core.rollout_document import mask_webhook
from gateway.registry.base import ROLLOUTS, Change


def mask_change(change: Change) -> Change:
    """`change` with its secrets masked, so that it may be shown. Of a rollout's webhook, scheme and host stay."""
    if change.kind != ROLLOUTS:
        return change
    return msgspec.structs.replace(
        change, before=_without_webhook_path(change.before), after=_without_webhook_path(change.after)
    )


def _without_webhook_path(body: dict[str, Any] | None) -> dict[str, Any] | None:
    plan = body.get("plan") if body is not None else None
    if body is None or not isinstance(plan, dict) or not plan.get("webhook"):
        return body
    return {**body, "plan": {**plan, "webhook": mask_webhook(str(plan["webhook"]))}}

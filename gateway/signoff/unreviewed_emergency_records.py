"""Add and remove the registry's records of emergencies that nobody else has reviewed yet.

Gateways warn of them. Each is a registry document, which is deleted after the review.
"""

from gateway.registry.base import EMERGENCIES, Delete, Put, Registry
from gateway.signoff.approval_requests import ApprovalStatus
from gateway.signoff.in_toto_statement import Decision


async def emergency_changes(
    registry: Registry,
    approval_request_id: str,
    title: str,
    decision: Decision,
    verdict: ApprovalStatus,
    by: str,
) -> list[Put | Delete]:
    """The registry changes that record or remove an unreviewed emergency.

    A decision records one, or removes the one that it reviews. `verdict` includes the decision of
    the person `by`.
    """
    known = await registry.read(EMERGENCIES, approval_request_id)
    expected = known.revision if known is not None else 0
    if decision == "emergency" and verdict.emergency is not None and verdict.review_due:
        said = verdict.emergency.predicate
        body = {
            "title": title,
            "by": said.by,
            "at": said.at,
            "reason": said.reason,
            "review_due": verdict.review_due,
        }
        return [Put(kind=EMERGENCIES, name=approval_request_id, body=body, expected=expected)]
    is_by_another = known is not None and known.body.get("by") != by
    if decision in {"approve", "review"} and is_by_another and not verdict.review_due:
        return [Delete(kind=EMERGENCIES, name=approval_request_id, expected=expected)]
    return []

"""Checks the evidence that a sign-off policy requires. It finds what is missing, failed, too old, or about something else."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from gateway.core.version_evidence import CARD
from gateway.registry.hash_chain import text_digest
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import SignOffPolicy

_MAX_SKEW: Final = timedelta(minutes=5)


def evidence_digests(evidence: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The SHA-256 digest of each record of evidence, by name."""
    return {
        sort: text_digest(msgspec.json.encode(record, order="sorted").decode()) or ""
        for sort, record in sorted(evidence.items())
    }


def evidence_problems(
    policy: SignOffPolicy,
    evidence: Mapping[str, Mapping[str, Any]],
    subject: Subject,
    now: datetime | None = None,
) -> list[str]:
    """What is wrong with the evidence that a policy requires. It is missing, failed, too old, or about something else."""
    if not subject.model:
        return []
    problems = []
    for sort in policy.evidence:
        record = evidence.get(sort)
        if record is None:
            problems.append(f"the evidence {sort} is missing for {subject.title}")
        elif record.get("passed") is not True:
            problems.append(f"the evidence {sort} says that it failed: {record.get('summary', '')}")
        elif record.get("artifact_digest", "") != subject.artifact:
            problems.append(f"the evidence {sort} is about another artifact")
        elif record.get("image") and str(record["image"]).rpartition("@")[2] != subject.image:
            problems.append(f"the evidence {sort} is about another image")
        elif sort != CARD and _is_too_old(record, policy, now or datetime.now(UTC)):
            problems.append(
                f"the evidence {sort} has expired: it is from {record.get('written_at', 'an unknown time')}, and the "
                f"policy takes none older than {policy.evidence_days:g} days"
            )
    return problems


def _is_too_old(record: Mapping[str, Any], policy: SignOffPolicy, now: datetime) -> bool:
    """A card is part of the artifact, and so never too old; of other records the history says when they were written."""
    if not policy.evidence_days:
        return False
    try:
        age = now - datetime.fromisoformat(record["written_at"])
    except (KeyError, TypeError, ValueError):
        return True
    return not -_MAX_SKEW <= age <= timedelta(days=policy.evidence_days)  # nor from a time to come

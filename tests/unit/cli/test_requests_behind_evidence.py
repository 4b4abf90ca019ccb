"""Who signs sees how many requests the verdict of a rollout or shadow rests on."""

import asyncio
from typing import Any

import pytest

from gateway.cli.support.approval_signer_options import require_sign_off_policy
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import EvidenceRecord
from gateway.registry.base import APPROVALS, EVIDENCE, SIGN_OFF
from gateway.registry.sqlite import SqliteRegistry
from gateway.signoff.approval_review_document import review_document
from gateway.signoff.read_sign_off_records import read_requests_and_keys
from tests.unit.cli.sign_off_stage import ARTIFACT, Stage


@pytest.mark.parametrize(
    ("requests", "asked", "told"),
    [
        (1, 500, "rests on 1 request: few, since a step of a rollout asks for 500"),
        (499, 5, "rests on 499 requests: few, since a step of a rollout asks for 500"),
        (700, 1000, "rests on 700 requests: few, since a step of a rollout asks for 1000"),
        (700, 500, "rests on 700 requests"),
    ],
)
def test_who_signs_sees_how_many_requests_a_verdict_rests_on(
    stage: Stage, requests: int, asked: int, told: str
):
    stage.put("prod", SIGN_OFF, "policy", None)
    policy = stage.people.policy(evidence='"canary", "shadow"', approvals="approver = 1")
    (stage.folder / "sign-off.toml").write_text(policy)
    stage.prod("sign-off", "set", "sign-off.toml")
    for sort, facts in (
        ("canary", {"min_requests": asked, "errors": {"finding": "fine", "candidate": [requests, 0]}}),
        ("shadow", {"compared": 20_000}),
    ):
        record = EvidenceRecord(
            model="wine",
            version="4",
            sort=sort,
            passed=True,
            summary="nothing is worse",
            backend="http://qa/predict",
            artifact_digest=ARTIFACT,
            facts=facts,
        )
        stage.put("qa", EVIDENCE, record.name, to_document(record))
    identity = stage.request()
    few = "few" in told
    for shown in (
        stage.prod("approvals", identity).out,
        stage.shell.ok("--env", "qa", "evidence", "wine@4").out,
    ):
        assert f"{told}\n" in shown
        assert ("warning" in shown) is few
        assert "rests on 20000 requests\n" in shown
    canary, shadow = _review(stage, identity)["evidence"]
    assert (canary["requests"], canary["too_few_requests"]) == (told, few)
    assert (shadow["requests"], shadow["too_few_requests"]) == ("rests on 20000 requests", False)
    approved = stage.approve(identity, "bea").out
    assert (f"the evidence canary {told}" in approved) is few
    assert "the evidence shadow" not in approved


def _review(stage: Stage, identity: str) -> dict[str, Any]:
    """The request as the console shows it."""

    async def work() -> dict[str, Any]:
        registry = SqliteRegistry(stage.folder / "prod.db")
        records = await read_requests_and_keys(registry, await require_sign_off_policy(registry))
        await registry.close()
        return await asyncio.to_thread(review_document, document, records, None, policy)

    document, policy = stage.read("prod", APPROVALS, identity), stage.read("prod", SIGN_OFF, "policy")
    return asyncio.run(work())

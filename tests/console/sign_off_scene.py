"""A stage whose environment has a sign-off policy, and a request for approval with a model card among its evidence."""

from pathlib import Path
from typing import Any

import msgspec

from gateway.artifacts.model_card_sections import SECTIONS, card_evidence
from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import CARD
from gateway.registry.base import APPROVALS, EMERGENCIES, MODELS, SIGN_OFF, SIGN_OFF_POLICY, Put, Registry
from gateway.signoff.approval_requests import (
    ApprovalRequest,
    derive_request_id,
    evaluate_request,
    find_request,
    read_request,
    with_decision_and_keys,
)
from gateway.signoff.approval_subject import subject_of
from gateway.signoff.environment_policy import parse_policy_toml, policy_digest
from gateway.signoff.in_toto_statement import Decision, make_statement, ssh_signer
from gateway.signoff.read_sign_off_records import read_policy_and_records
from gateway.signoff.required_evidence import evidence_digests
from gateway.signoff.unreviewed_emergency_records import emergency_changes
from tests.unit.signoff.people import People

WROTE = "<img src=x onerror=alert(1)> Trained on **45** wines."
NEW = Backend(
    version="4",
    url="http://qa",
    image="eu.pkg.dev/p/wine@sha256:" + "b" * 64,
    artifact_digest="sha256:" + "a" * 64,
    concurrency=8,
)


class SignOffScene:
    """Writes what the commands write, into the registry of a gateway that runs."""

    def __init__(
        self, registry: Registry, people: People, *, issuer: str = "", client: str = "console"
    ) -> None:
        self.registry, self.people = registry, people
        token = f'{{ issuer = "{issuer}", email = "gil@example.com", client = "{client}" }}'
        more = f'[[people]]\nname = "gil@example.com"\nroles = ["approver"]\ntokens = [{token}]\n'
        text = people.policy(evidence='"card"', more=more if issuer else "")
        self.policy: dict[str, Any] = msgspec.to_builtins(parse_policy_toml(text))
        self.model = Model(name="wine", policy=Policy(latency_s=0.2), backends=(NEW,), traffic={"4": 100})
        self.id = ""

    async def begin(self, **changes: Any) -> str:
        """The policy and a request by ana; `changes` of its document come from somebody with the database's rights."""
        await self.registry.write(
            Put(kind=SIGN_OFF, name=SIGN_OFF_POLICY, body=self.policy, expected=0), author="ana"
        )
        card = "".join(f"## {name}\n\n{WROTE}\n\n" for name in SECTIONS).encode()
        evidence = {CARD: to_document(card_evidence("wine", NEW, card))}
        self.subject = subject_of(
            self.model,
            NEW,
            environment=(await self.registry.head()).registry_id,
            sign_off=policy_digest(self.policy),
            evidence=evidence_digests(evidence),
        )
        asked = self.statement("request", "", "ana", "better on red wines")
        self.id = derive_request_id(asked)
        request = ApprovalRequest(
            title="wine@4", request=asked, evidence=evidence, proposal=to_document(self.model)
        )
        body = {**msgspec.to_builtins(request), **changes}
        await self.registry.write(Put(kind=APPROVALS, name=self.id, body=body, expected=0), author="ana")
        return self.id

    def statement(self, decision: Decision, request: str, who: str, reason: str) -> dict[str, Any]:
        signer = ssh_signer(Path(self.people.key(who)))
        return make_statement(decision, request, f"{who}@example.com", self.subject, signer, reason=reason)

    async def decide(self, decision: Decision, who: str, reason: str = "seen") -> None:
        found = await find_request(self.registry, self.id)
        records = await read_policy_and_records(self.registry)
        assert found is not None
        assert records is not None
        change = with_decision_and_keys(
            found[0], self.statement(decision, self.id, who, reason), records.issuer_keys
        )
        after = read_request(msgspec.structs.replace(found[0], body=change.body))
        verdict = evaluate_request(
            self.id, after, records.stored, records.issuer_keys, environment=records.environment
        )
        by = f"{who}@example.com"
        more = await emergency_changes(self.registry, self.id, "wine@4", decision, verdict, by)
        await self.registry.write(change, *more, author=by, reason=reason)

    async def verdict(self) -> dict[str, Any]:
        found = await find_request(self.registry, self.id)
        records = await read_policy_and_records(self.registry)
        assert found is not None
        assert records is not None
        verdict = evaluate_request(
            self.id, found[1], records.stored, records.issuer_keys, environment=records.environment
        )
        return {"approved": verdict.approved, "by": [one.person.name for one in verdict.approvals]}

    async def emergencies(self) -> int:
        return len(await self.registry.list(EMERGENCIES))

    async def serves(self) -> bool:
        return await self.registry.read(MODELS, "wine") is not None

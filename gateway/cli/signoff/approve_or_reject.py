"""`chips approve`, `reject` and `approvals`: approve or reject a request for approval, and list the requests."""

from typing import Annotated, Any, Final

import typer

from gateway.audit.dsse_envelope import SigningError
from gateway.cli.rollouts.version_evidence import print_card_sections, print_requests_behind
from gateway.cli.support import console
from gateway.cli.support.approval_signer_options import (
    AsOption,
    SshKeyOption,
    TokenCommandOption,
    identify_signer,
    require_sign_off_policy,
    sign_and_verify,
)
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.suggestions import suggest
from gateway.core.version_evidence import CARD, verdict_sample_size
from gateway.registry.base import APPROVALS, Document, Registry
from gateway.signoff.approval_requests import (
    ApprovalRequest,
    ApprovalStatus,
    StoredPolicy,
    evaluate_request,
    find_request,
    read_request,
    request_problems,
    why_last_decision_does_not_count,
    with_decision_and_keys,
)
from gateway.signoff.approval_subject import Subject
from gateway.signoff.in_toto_statement import Decision, read_statement
from gateway.signoff.read_sign_off_records import (
    SignOffRecords,
    fetch_current_issuer_keys,
    read_requests_and_keys,
)
from gateway.signoff.unreviewed_emergency_records import emergency_changes
from gateway.signoff.verify_identity_token_signature import IssuerKeys

_DONE: Final = {"approve": "approved", "reject": "rejected", "emergency": "emergency", "review": "reviewed"}

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The request: `chips approvals` lists them.")]


def approve(
    request_id: IdArgument,
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency", help="Put it into service alone; needs --reason, and a review afterwards."
        ),
    ] = False,
    review: Annotated[bool, typer.Option("--review", help="Note that an emergency was looked at.")] = False,
    ssh_key: SshKeyOption = None,
    token_command: TokenCommandOption = None,
    name: AsOption = None,
    reason: console.ReasonOption = "",
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Approve a request, by a signature. It holds for exactly what the request binds, and ends when anything of it changes.

    Example: `chips --env prod approve $ID --ssh-key ~/.ssh/id_ed25519`
    """
    if emergency and review:
        raise Failure(
            "an emergency is reviewed by somebody else", hint="--emergency or --review", code=EX_USAGE
        )
    if emergency and not reason:
        raise Failure("an emergency needs a reason", hint='--reason "…"', code=EX_USAGE)
    decision: Decision = "emergency" if emergency else "review" if review else "approve"
    _decide(request_id, decision, ssh_key, token_command, name, reason, registry_url, as_json=as_json)


def reject(
    request_id: IdArgument,
    ssh_key: SshKeyOption = None,
    token_command: TokenCommandOption = None,
    name: AsOption = None,
    reason: console.ReasonOption = "",
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Reject a request for approval.

    It takes a signature and a reason. Nobody else's approval outweighs it.

    Example: `chips --env prod reject $ID --reason "the canary was too short" --ssh-key ~/.ssh/id_ed25519`
    """
    if not reason:
        raise Failure("a rejection needs a reason", hint='--reason "…"', code=EX_USAGE)
    _decide(request_id, "reject", ssh_key, token_command, name, reason, registry_url, as_json=as_json)


def approvals(
    request_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A request; otherwise all of them.")
    ] = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the requests for approval, and whether they are approved now.

    Of one request, it also shows what it binds and its evidence.

    Example: `chips --env prod approvals`
    """

    async def work(registry: Registry) -> list[dict[str, Any]]:
        records = await read_requests_and_keys(registry, await require_sign_off_policy(registry))
        documents = [one for one in records.requests if request_id in {None, one.name}]
        if request_id is not None and not documents:
            await _find(registry, request_id)  # says what there is
        return [_facts(document, records) for document in documents]

    found = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.out.print("no requests yet: chips request-approval MODEL@VERSION --to ENV")
    for facts in found:
        _show(facts, whole=request_id is not None)


def _decide(
    request_id: str,
    decision: Decision,
    ssh_key: Any,
    token_command: str | None,
    name: str | None,
    reason: str,
    registry_url: str | None,
    *,
    as_json: bool,
) -> None:
    async def work(registry: Registry) -> dict[str, Any]:
        stored = await require_sign_off_policy(registry)
        keys = await fetch_current_issuer_keys(stored.policy)
        document, request = await _find(registry, request_id)
        who = identify_signer(stored.policy, ssh_key, token_command, name)
        environment = (await registry.head()).registry_id
        subject = _subject(request_id, request, stored, keys, environment)
        statement = sign_and_verify(who, stored.policy, keys, decision, request_id, subject, reason)
        change = with_decision_and_keys(document, statement, keys)
        after = read_request(_with(document, change.body))
        why_not = why_last_decision_does_not_count(request_id, after, stored, keys)
        if why_not:
            raise Failure(f"{who.name}: {decision} does not count: {why_not}", code=EX_DATAERR)
        verdict = evaluate_request(request_id, after, stored, keys, environment=environment)
        more = await emergency_changes(registry, request_id, request.title, decision, verdict, who.name)
        await registry.write(
            change, *more, author=who.name, reason=f"{_DONE[decision]}: {reason}".removesuffix(": ")
        )
        return {
            "id": request_id,
            "title": request.title,
            "decision": decision,
            "by": who.name,
            "few_requests": _few_requests(request),
            **_verdict_facts(verdict),
        }

    facts = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(facts)
        return
    style = "bold red" if decision in {"reject", "emergency"} else "bold green"
    console.say(_DONE[decision], f"{facts['title']} by {facts['by']}", style=style)
    for text in facts["few_requests"]:
        console.say("warning", text, style="bold yellow")
    _show_verdict(facts)


def _few_requests(request: ApprovalRequest) -> list[str]:
    """The evidence of the request that rests on few requests, a line each."""
    found = ((sort, verdict_sample_size(record)) for sort, record in request.evidence.items())
    return [
        f"the evidence {sort} {behind}" for sort, behind in found if behind is not None and behind.too_few
    ]


def _with(document: Document, body: dict[str, Any]) -> Document:
    return Document(kind=document.kind, name=document.name, revision=document.revision, body=body)


async def _find(registry: Registry, request_id: str) -> tuple[Document, ApprovalRequest]:
    try:
        found = await find_request(registry, request_id)
    except ValueError as error:
        raise Failure(f"the request {request_id} cannot be read: {error}", code=EX_DATAERR) from None
    if found is None:
        known = [one.name for one in await registry.list(APPROVALS)]
        raise Failure(
            f'there is no request "{request_id}"{suggest(request_id, known)}',
            hint="`chips approvals` lists them",
            code=EX_DATAERR,
        )
    return found


def _subject(
    request_id: str, request: ApprovalRequest, stored: StoredPolicy, keys: IssuerKeys, environment: str
) -> Subject:
    try:
        asked = read_statement(request.request, stored.policy, keys)
    except SigningError as error:
        raise Failure(
            f"the request does not count: {error}", hint="chips request-approval asks again", code=EX_DATAERR
        ) from None
    problems = request_problems(request_id, request, asked, environment)
    if problems:
        raise Failure(
            f"nobody can decide on the request {request_id}: {'; '.join(problems)}",
            hint="chips audit --verify; chips request-approval asks again",
            code=EX_DATAERR,
        )
    return asked.predicate.subject


def _facts(document: Document, records: SignOffRecords) -> dict[str, Any]:
    try:
        request = read_request(document)
    except ValueError as error:
        return {
            "id": document.name,
            "title": "?",
            **_verdict_facts(ApprovalStatus(approved=False, problems=(str(error),))),
        }
    stored, keys = records.stored, records.issuer_keys
    verdict = evaluate_request(document.name, request, stored, keys, environment=records.environment)
    facts: dict[str, Any] = {"id": document.name, "title": request.title, **_verdict_facts(verdict)}
    try:
        predicate = read_statement(request.request, stored.policy, keys).predicate
    except SigningError:  # the verdict says it
        return facts
    subject = predicate.subject
    return {
        **facts,
        "requested_by": predicate.by,
        "requested_at": predicate.at,
        "reason": predicate.reason,
        "image": subject.image,
        "artifact": subject.artifact,
        "address": subject.address,
        "evidence": request.evidence,
    }


def _verdict_facts(verdict: ApprovalStatus) -> dict[str, Any]:
    return {
        "approved": verdict.approved,
        "problems": list(verdict.problems),
        "approved_by": [one.person.name for one in verdict.approvals],
        "ignored": list(verdict.ignored),
        "emergency_by": verdict.emergency.person.name if verdict.emergency is not None else "",
        "review_due": verdict.review_due,
        "expires": verdict.expires,
    }


def _show(facts: dict[str, Any], *, whole: bool) -> None:
    by = (
        f", asked for by {facts['requested_by']} at {facts['requested_at']}"
        if "requested_by" in facts
        else ""
    )
    state = "approved" if facts["approved"] else "open"
    style = "bold green" if facts["approved"] else "bold"
    console.say(state, f"{facts['id']}  {facts['title']}{by}", style=style)
    if whole:
        for what in ("reason", "image", "artifact", "address"):
            if facts.get(what):
                console.say("", f"{what} {facts[what]}")
        for sort, record in facts.get("evidence", {}).items():
            console.say("", f"evidence {sort}: {record.get('summary') or console.short_value(record)}")
            print_requests_behind(record)
            if sort == CARD:
                print_card_sections(record.get("facts", {}))
    _show_verdict(facts)


def _show_verdict(facts: dict[str, Any]) -> None:
    if facts["approved_by"]:
        console.say("", f"approved by {', '.join(facts['approved_by'])}; holds until {facts['expires']}")
    if facts["emergency_by"]:
        due = f"a review is due by {facts['review_due']}" if facts["review_due"] else "reviewed"
        console.say("", f"EMERGENCY by {facts['emergency_by']}: {due}", style="bold red")
    for text in (*facts["problems"], *facts["ignored"]):
        console.say("", text, style="bold yellow")

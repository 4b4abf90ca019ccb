"""`chips sign-off`: show or change the sign-off policy. It says who must approve what in the environment."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.approval_signer_options import require_sign_off_policy
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.registry.base import SIGN_OFF, Put, Registry
from gateway.signoff.environment_policy import (
    POLICY,
    SignOffPolicy,
    parse_policy_toml,
    policy_digest,
    policy_document,
)

sign_off = typer.Typer(
    help="Who must approve a version before it serves: write the policy, show it.", no_args_is_help=True
)


@sign_off.command("set")
def set_policy(
    file: Annotated[Path, typer.Argument(help="The policy, in TOML.")],
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the sign-off policy. From then on versions need its approvals, and so does another policy in its place.

    Example: `chips --env prod sign-off set sign-off.toml`
    """
    policy = read_policy_from(file)
    body = policy_document(policy)

    async def work(registry: Registry) -> dict[str, Any]:
        document = await registry.read(SIGN_OFF, POLICY)
        if document is not None and document.body == body:
            return {"digest": policy_digest(body), "written": False}
        change = Put(
            kind=SIGN_OFF, name=POLICY, body=body, expected=document.revision if document is not None else 0
        )
        generation = await registry.write(change, author=console.author_name(by), reason=reason)
        return {"digest": policy_digest(body), "written": True, "generation": generation}

    facts = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(facts)
    elif facts["written"]:
        console.say(
            "written", f"generation {facts['generation']}; approvals bind sha256:{facts['digest'][:16]}…"
        )
    else:
        console.say("unchanged", "the policy is as the file says")


@sign_off.command()
def show(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """Show the sign-off policy.

    It says whose approvals a version needs, on which evidence, and who may act alone in an emergency.

    Example: `chips --env prod sign-off show`
    """
    stored = console.with_registry(registry_url, require_sign_off_policy)
    if as_json:
        console.print_json({**msgspec.to_builtins(stored.policy), "digest": stored.digest})
        return
    policy = stored.policy
    console.say("approvals", ", ".join(f"{count} of {role}" for role, count in policy.approvals.items()))
    console.say("hold", f"{policy.valid_days:g} days")
    age = f", none older than {policy.evidence_days:g} days" if policy.evidence_days else ""
    console.say("evidence", (", ".join(policy.evidence) or "none") + age)
    for person in policy.people:
        proofs = [key.partition(" ")[0] for key in person.ssh_keys]
        proofs += [f"token of {token.issuer} for {token.email or token.subject}" for token in person.tokens]
        console.say(
            person.name, f"{', '.join(person.roles) or 'may request'}; proves it by {', '.join(proofs)}"
        )
    if policy.emergency.people:
        console.say(
            "emergency",
            f"{', '.join(policy.emergency.people)} alone; reviewed within {policy.emergency.review_days:g} days",
        )
    console.say("digest", f"sha256:{stored.digest}, revision {stored.revision}")


def read_policy_from(file: Path) -> SignOffPolicy:
    """The policy in a file. Raises Failure."""
    try:
        return parse_policy_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", code=EX_DATAERR) from None
    except ValueError as error:
        raise Failure(f"{file}: {error}", hint="docs/how-to/sign-off.md shows one", code=EX_DATAERR) from None

"""The options that say who signs an approval. They name an SSH key or an identity token.

Approval commands have them. This module also signs, by the key or token.
"""

import shlex
import subprocess
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gateway.audit.dsse_envelope import SigningError
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.registry.base import Registry
from gateway.signoff.approval_requests import StoredPolicy
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import SignOffPolicy
from gateway.signoff.in_toto_statement import (
    Decision,
    Sign,
    make_statement,
    read_statement,
    ssh_signer,
    token_signer,
)
from gateway.signoff.read_sign_off_records import read_policy
from gateway.signoff.ssh_keygen_signature import SshKeygenError, public_key_of
from gateway.signoff.verify_identity_token_signature import IssuerKeys

_TOKEN_S = 120.0

SshKeyOption = Annotated[
    Path | None,
    typer.Option("--ssh-key", metavar="FILE", help="Sign with this SSH key (or its .pub, with an agent)."),
]
TokenCommandOption = Annotated[
    str | None,
    typer.Option(
        "--token-command",
        metavar="COMMAND",
        help="Sign with the identity token that this prints; {audience} in it is what the token must be made for.",
    ),
]
AsOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="With --token-command: whose token it is.")
]


class SignerIdentity(NamedTuple):
    """A person who signs, and the function that signs. `name` is the name in the sign-off policy."""

    name: str
    sign: Sign


def identify_signer(
    policy: SignOffPolicy, ssh_key: Path | None, token_command: str | None, name: str | None
) -> SignerIdentity:
    """Find out who signs, from the options. Raises Failure where the policy does not know them."""
    if (ssh_key is None) == (token_command is None):
        raise Failure(
            "sign it: a name alone counts nowhere",
            hint="--ssh-key FILE, or --token-command COMMAND --as NAME",
            code=EX_USAGE,
        )
    if ssh_key is None:
        assert token_command is not None  # noqa: S101  (one of the two is given)
        return _by_token(policy, token_command, name)
    try:
        public = public_key_of(ssh_key)
    except SshKeygenError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    known = next((person for person in policy.people if public in person.ssh_keys), None)
    if known is None:
        raise Failure(
            f"the sign-off policy does not know the key {ssh_key}",
            hint="`chips sign-off show` lists the people and their keys",
            code=EX_DATAERR,
        )
    return SignerIdentity(known.name, ssh_signer(ssh_key))


def _by_token(policy: SignOffPolicy, command: str, name: str | None) -> SignerIdentity:
    person = policy.person(name or "")
    if person is None or not person.tokens:
        raise Failure(
            "say whose token it is" if not name else f"the sign-off policy knows no tokens of {name}",
            hint="--as NAME; `chips sign-off show` lists the people",
            code=EX_USAGE,
        )

    def fetch(audience: str) -> str:
        words = [word.replace("{audience}", audience) for word in shlex.split(command)]
        try:
            ended = subprocess.run(words, capture_output=True, text=True, timeout=_TOKEN_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"the token's command cannot be run: {error}", code=EX_DATAERR) from None
        if ended.returncode:
            raise Failure(
                f"the token's command ended with {ended.returncode}", hint=ended.stderr.strip()[:300]
            )
        return ended.stdout.strip()

    return SignerIdentity(person.name, token_signer(fetch))


def sign_and_verify(
    identity: SignerIdentity,
    policy: SignOffPolicy,
    keys: IssuerKeys,
    decision: Decision,
    request: str,
    subject: Subject,
    reason: str,
) -> dict[str, Any]:
    """Sign a decision, and verify the signature.

    The decision is about a request; everybody will verify it in the same way. Raises Failure.
    """
    try:
        statement = make_statement(decision, request, identity.name, subject, identity.sign, reason=reason)
        read_statement(statement, policy, keys)
    except (SshKeygenError, SigningError) as error:
        raise Failure(f"it could not be signed: {error}", code=EX_DATAERR) from None
    return statement


async def require_sign_off_policy(registry: Registry) -> StoredPolicy:
    """Read the registry's sign-off policy. Raises Failure where there is none, or where it cannot be read."""
    try:
        stored = await read_policy(registry)
    except ValueError as error:
        raise Failure(f"the sign-off policy cannot be read: {error}", code=EX_DATAERR) from None
    if stored is None:
        raise Failure(
            "this environment asks for no approvals",
            hint="chips sign-off set FILE writes a policy",
            code=EX_DATAERR,
        )
    return stored


def split_model_and_version(text: str) -> tuple[str, str]:
    """Split `wine@4` into model and version. Raises Failure."""
    name, at, version = text.partition("@")
    if not at or not name or not version:
        raise Failure(f"{text[:80]!r} is not MODEL@VERSION", hint="such as wine@4", code=EX_USAGE)
    return name, version

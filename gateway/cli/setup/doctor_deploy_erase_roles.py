"""The check of `chips doctor` that by the project's IAM roles no approver may deploy, and no account may erase.

The approvers are those of the sign-off policy. Erasing means deleting what the registry or its stores hold.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.cli.setup.doctor_checks import Finding
from gateway.cli.support import console
from gateway.registry.base import Registry
from gateway.settings import gcloud_endpoint_override

_API: Final = "https://cloudresourcemanager.googleapis.com"
_SCOPES: Final = ["https://www.googleapis.com/auth/cloud-platform"]
_TIMEOUT_S: Final = 10.0
_EVERYTHING: Final = frozenset({"roles/owner", "roles/editor"})
# By which somebody could bring something into service, or act as an account that can.
_DEPLOY: Final = _EVERYTHING | {
    "roles/artifactregistry.admin",
    "roles/artifactregistry.repoAdmin",
    "roles/artifactregistry.writer",
    "roles/cloudbuild.builds.editor",
    "roles/iam.serviceAccountTokenCreator",
    "roles/iam.serviceAccountUser",
    "roles/run.admin",
    "roles/run.developer",
}
# By which somebody could delete documents of the registry, its history included, or kept heads and artifacts.
_ERASE: Final = _EVERYTHING | {
    "roles/datastore.owner",
    "roles/datastore.user",
    "roles/firebase.admin",
    "roles/storage.admin",
    "roles/storage.objectAdmin",
    "roles/storage.objectUser",
}
_FIX: Final = "docs/how-to/permissions.md has the roles; deploy/terraform grants them"


async def check_deploy_erase_roles(registry: Registry, database: str) -> list[Finding]:
    """Find approvers who may deploy, and accounts that may erase, by the IAM roles of the environment's project.

    An approver of the sign-off policy must not deploy, and nobody should be able to erase what the registry or its stores
    hold. Empty where the environment names no project.
    """
    chosen = console.chosen_environment()
    if chosen is None or not chosen.environment.project:
        return []
    approvers = await _approvers(registry)
    examined = await asyncio.to_thread(_examined, chosen.environment.project, approvers, database)
    return list(examined)


def firestore_database_of(registry_url: str) -> str:
    """The Firestore database of a registry's URL. It is Firestore's own name for the default one where the URL names none."""
    return urlsplit(registry_url).path.strip("/") or "(default)"


async def _approvers(registry: Registry) -> frozenset[str]:
    """The addresses of the people who approve by the sign-off policy."""
    from gateway.signoff.read_sign_off_records import read_policy

    try:
        stored = await read_policy(registry)
    except ValueError:  # a finding of its own
        return frozenset()
    if stored is None:
        return frozenset()
    people = [one for one in stored.policy.people if set(one.roles) & stored.policy.approvals.keys()]
    tokens = {token.email for person in people for token in person.tokens}
    return frozenset({one.name.casefold() for one in people} | {email.casefold() for email in tokens}) - {""}


def _examined(project: str, approvers: frozenset[str], database: str) -> list[Finding]:
    subject = f"roles in {project}"
    try:
        bindings = _bindings(project)
    except PermissionError:
        text = "your account may not read who holds which role (roles/iam.securityReviewer)"
        return [Finding(subject, "skipped", text)]
    except OSError as error:
        return [Finding(subject, "warning", f"who holds which role cannot be read: {error}")]
    found = [*_findings(subject, bindings, approvers, database)]
    return found or [Finding(subject, "ok", "no approver deploys, and nobody may erase the registry")]


def _findings(
    subject: str, bindings: Sequence[Mapping[str, Any]], approvers: frozenset[str], database: str
) -> Iterator[Finding]:
    deploying: dict[str, set[str]] = {}
    erasing: dict[str, set[str]] = {}
    for binding in bindings:
        role, members = str(binding.get("role", "")), binding.get("members", [])
        for member in members:
            kind, _, address = str(member).partition(":")
            if kind in {"user", "serviceAccount"} and role in _DEPLOY and address.casefold() in approvers:
                deploying.setdefault(address, set()).add(role)
            if role in _ERASE and kind != "deleted" and _concerns(binding, database):
                erasing.setdefault(str(member), set()).add(role)
    for address, roles in sorted(deploying.items()):
        text = f"{address} approves by the sign-off policy, and may deploy by {', '.join(sorted(roles))}"
        yield Finding(subject, "wrong", text, _FIX)
    for member, roles in sorted(erasing.items()):
        text = f"{member} may erase what the registry or its stores hold, by {', '.join(sorted(roles))}"
        yield Finding(subject, "warning", text, _FIX)


def _concerns(binding: Mapping[str, Any], database: str) -> bool:
    """Whether a binding holds for the registry's database: one that a condition limits to another does not."""
    condition = binding.get("condition") or {}
    expression = str(condition.get("expression", ""))
    return "/databases/" not in expression or f'/databases/{database}"' in expression


def _bindings(project: str) -> list[dict[str, Any]]:
    """The project's IAM policy. Raises PermissionError where it may not be read, OSError where it cannot."""
    import requests
    from google.auth.exceptions import GoogleAuthError

    address = gcloud_endpoint_override("cloudresourcemanager") or _API
    try:
        answer = _session(address).post(
            f"{address}/v3/projects/{project}:getIamPolicy",
            json={"options": {"requestedPolicyVersion": 3}},
            timeout=_TIMEOUT_S,
        )
        if answer.status_code in {401, 403}:
            raise PermissionError
        answer.raise_for_status()
        content: Any = answer.json()
    except (requests.RequestException, GoogleAuthError, ValueError) as error:
        raise OSError(str(error).splitlines()[0]) from None
    bindings = content.get("bindings", []) if isinstance(content, dict) else []
    return [one for one in bindings if isinstance(one, dict)]


def _session(address: str) -> Any:
    """With the caller's credentials; an address that begins with http:// is a stand-in, and gets none."""
    import requests

    if address.startswith("http://"):
        return requests.Session()
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=_SCOPES)
    return AuthorizedSession(credentials)

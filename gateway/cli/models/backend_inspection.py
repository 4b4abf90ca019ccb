"""Inspect a backend before `chips register` registers it.

The inspection finds which model the backend serves, and whether it keeps the contract.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.cli.models.register_third_party_server import (
    FIRST_VERSION,
    describe_server,
    resolve_model_server,
    to_model_metadata,
)
from gateway.cli.support import console
from gateway.cli.support.backend_credentials import CredentialsRefused
from gateway.cli.support.backend_probe import ModelMetadata, NotAChipsBackend, probe
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.model_server_detection import (
    UNKNOWN_KIND,
    ThirdPartyModelServer,
    is_chips_backend,
)
from gateway.core.name_validation import check_version
from gateway.verify.report import as_evidence
from gateway.verify.run import ArtifactManifestSubset, BackendNotReady, select_checks, verify


class RegistrationRequest(NamedTuple):
    """The registration that the command line asks for. None leaves a value as it is."""

    name: str
    url: str
    version: str | None
    traffic: int | None
    model: dict[str, Any]
    policy: dict[str, Any]
    backend: dict[str, Any]


class RegistrationReporter:
    """Reports the progress of a registration. It prints a line for each step, or one JSON document at the end."""

    def __init__(self, *, json_at_end: bool) -> None:
        self._json_at_end = json_at_end
        self.facts: dict[str, Any] = {}

    def tell(self, label: str, text: str, style: str = "bold", **facts: Any) -> None:
        self.facts |= facts
        if not self._json_at_end:
            console.say(label, text, style=style)

    def end(self) -> None:
        if self._json_at_end:
            console.print_json(self.facts)


class BackendInspection(NamedTuple):
    """What the inspection found out about a backend. `requested` is the registration request, completed by it."""

    requested: RegistrationRequest
    metadata: ModelMetadata | None = None
    service: ThirdPartyModelServer | None = None  # where it is a server of another kind
    broken: str = ""  # what to add to the reason


async def inspect_backend(
    requested: RegistrationRequest,
    wait_s: float,
    report: RegistrationReporter,
    headers: dict[str, str],
    *,
    yes: bool,
    force: bool,
) -> BackendInspection:
    """Find out what the backend is. It may be a CHIPS backend, a model server of another kind, or, with `force`, unknown."""
    failure: Failure | None = None
    metadata = None
    try:
        metadata = await probe_backend(requested, wait_s, report, headers)
        if await is_chips_backend(requested.url, requested.name, headers):
            return BackendInspection(requested, metadata)
    except (NotAChipsBackend, VersionNotStated) as error:
        if await is_chips_backend(requested.url, requested.name, headers):
            if force and not isinstance(error, VersionNotStated):
                return _forced(requested, error, report)
            raise
        failure = error
    except CredentialsRefused as error:
        if not (requested.backend["predict_path"] and requested.version):
            if not force:
                raise
            return _forced(requested, error, report)
        failure = error
    except Failure as error:
        if not force:
            raise
        return _forced(requested, error, report)
    path: str | None = requested.backend["predict_path"]
    try:
        service = await resolve_model_server(
            requested.name,
            requested.url,
            headers,
            failure,
            path=path,
            version=requested.version,
            yes=yes or force,
        )
    except NotAChipsBackend as error:
        if not force:
            raise
        return _forced(requested, error, report)
    report.tell(
        "service",
        f"{service.kind}, which our contract is not for: path {service.path}",
        **describe_server(service),
    )
    chosen = requested._replace(
        version=service.version, backend={**requested.backend, "predict_path": service.path}
    )
    metadata = to_model_metadata(requested.name, service)
    refused = isinstance(failure, CredentialsRefused) and service.kind == UNKNOWN_KIND
    return BackendInspection(chosen, metadata, service, _warn_of_refusal(report) if refused else "")


def _warn_of_refusal(report: RegistrationReporter) -> str:
    """Warn of a server that answered 401 or 403 only; return a note for the history's reason."""
    unverified = "not verified: it asks for credentials (401 or 403), so nothing shows that it serves a model"
    report.tell(
        "warning",
        f"{unverified}; --header NAME:VALUE sends it credentials",
        style="bold yellow",
        unverified=unverified,
    )
    return unverified


def _forced(
    requested: RegistrationRequest, error: Failure, report: RegistrationReporter
) -> BackendInspection:
    report.tell("forced", error.message, style="bold yellow", forced=error.message)
    return BackendInspection(
        requested._replace(version=requested.version or FIRST_VERSION),
        broken="forced although it did not answer as it should",
    )


class VersionNotStated(Failure):
    """The backend does not say which version it serves."""


async def probe_backend(
    requested: RegistrationRequest,
    wait_s: float,
    report: RegistrationReporter,
    headers: Mapping[str, str] | None = None,
) -> ModelMetadata:
    """Wait until the backend is ready, and return its metadata. Raises Failure, NotAChipsBackend or VersionNotStated."""
    told = set()

    def progress(message: str) -> None:
        if message not in told:
            told.add(message)
            console.note(f"waiting: {message}")

    metadata = await probe(requested.url, requested.name, wait_s=wait_s, progress=progress, headers=headers)
    if requested.version is None and len(metadata.versions) != 1:
        raise VersionNotStated(
            f"the backend names {len(metadata.versions)} versions, so say which one this is",
            hint="add --version",
            code=EX_USAGE,
        )
    if requested.version is not None and metadata.versions and requested.version not in metadata.versions:
        raise Failure(
            f"the backend serves version {', '.join(metadata.versions)}, not {requested.version}",
            hint="leave out --version to take the backend's own",
            code=console.EX_PROTOCOL,
        )
    validated_option(check_version, requested.version or metadata.versions[0])
    takes = metadata.integer_parameter("concurrency")
    report.tell(
        "backend",
        f"{requested.url} is ready: {metadata.platform or 'platform unknown'}"
        + (f", runs {takes} at once" if takes is not None else ""),
    )
    return metadata


async def run_conformance_checks(
    requested: RegistrationRequest,
    metadata: ModelMetadata,
    published: ArtifactManifestSubset,
    report: RegistrationReporter,
    fields: tuple[tuple[str, str], ...],
    *,
    force: bool,
) -> str:
    """Run the conformance checks against the backend.

    These are the checks of `chips verify --short`. Return a note for the history's reason, which names what failed where
    `force` lets it pass. Raises Failure where a check fails without `force`.
    """
    version = requested.version or metadata.versions[0]
    try:
        found = await verify(
            requested.url,
            model=requested.name,
            version=version,
            manifest=published,
            fields=fields,
            checks=select_checks([], short=True),
            wait_s=0,
        )
    except BackendNotReady as error:
        raise Failure(str(error), code=console.EX_UNAVAILABLE) from None
    failed = [result.check.name for result in found.failed]
    if failed and not force:
        first = found.failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise Failure(
            f"the backend breaks the contract: {first.check.name}: {first.why}{more}",
            hint=f"`chips verify {requested.url}` tells all of it; --force registers it all the same, and the history says so",
            code=console.EX_PROTOCOL,
        )
    checked = as_evidence(found)
    if failed:
        report.tell(
            "contract", f"broken, and forced: {', '.join(failed)}", style="bold yellow", verified=checked
        )
        return f"forced although the backend breaks the contract: {', '.join(failed)}"
    report.tell("contract", f"kept, as far as {checked['passed']} checks can see", verified=checked)
    return ""


def validated_option(check: Any, value: str) -> str:
    """Check an option's value and return it. `check` returns the value or raises ValueError, which becomes a Failure."""
    try:
        result: str = check(value)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    return result

# Long: one command with more than thirty options, each read once.
"""`chips register`: register a backend. It waits until a gateway serves the backend."""

import shlex
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
import typer

from gateway.artifacts.manifest import RowsPolicy
from gateway.cli.models.backend_inspection import (
    BackendInspection,
    RegistrationReporter,
    RegistrationRequest,
    inspect_backend,
    run_conformance_checks,
    validated_option,
)
from gateway.cli.models.merge_registration import (
    _OUR_PATH,
    RegisteredVersion,
    Verification,
    merge_registration,
)
from gateway.cli.support import console
from gateway.cli.support.backend_credentials import (
    CredentialsRefused,
    HeaderOption,
    headers_or_id_token,
    parse_header,
)
from gateway.cli.support.backend_probe import ModelMetadata
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.model_server_detection import example_request_json
from gateway.cli.support.parse_sizes import given_resources
from gateway.cli.support.read_published_artifact import RowsOption, published_samples
from gateway.cli.support.wait_until_gateway_serves import WatchedGatewayOption, wait_until_served
from gateway.control.openapi import example_instance
from gateway.core.ip_network_set import parse_network
from gateway.core.model import Model, check_backend_url
from gateway.core.model_cors_policy import CorsRule
from gateway.core.name_validation import check_model_name, check_version
from gateway.registry.base import MirroredListing
from gateway.settings import Settings
from gateway.upstream.egress_policy import EgressPolicy, EgressRefused


def register(
    name: Annotated[str, typer.Argument(help="What callers write in the path.")],
    url: Annotated[str, typer.Argument(help="The backend's address, such as https://wine-abc.run.app")],
    version: Annotated[
        str | None, typer.Option(help="Version it serves; otherwise the one it says itself.")
    ] = None,
    traffic: Annotated[
        int | None,
        typer.Option(
            min=0, max=100, help="Percent for this version; otherwise 100 for the first, 0 for a further one."
        ),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers questions about the model.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, for callers.")] = None,
    access: Annotated[
        Literal["key", "public"] | None, typer.Option(help="Whether callers need a key.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds one request may take.")] = None,
    body_limit: Annotated[int | None, typer.Option(min=1, help="Largest request body in bytes.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Requests at the backend at once.")] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Network that callers must be in; may be repeated; `any` for no other."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second, of all callers together.")] = None,
    burst: Annotated[
        int | None, typer.Option(help="Requests at once after a pause; otherwise what one second allows.")
    ] = None,
    per_day: Annotated[int | None, typer.Option(help="Requests per day (UTC).")] = None,
    per_month: Annotated[int | None, typer.Option(help="Requests per month (UTC).")] = None,
    pure: Annotated[
        bool | None,
        typer.Option(
            "--pure/--not-pure",
            help="Whether predicting changes nothing, so that a request may be sent twice.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may call it; may be repeated; `none` takes all away."),
    ] = None,
    cors_credentials: Annotated[
        bool, typer.Option("--cors-credentials", help="Those pages may send cookies and certificates.")
    ] = False,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Predictions one instance runs at once; otherwise what it says.")
    ] = None,
    cpu: Annotated[
        float | None,
        typer.Option(min=0.08, max=256, help="Processors of one instance; chips cost counts with it."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory of one instance, such as 512Mi or 2Gi; chips cost counts with it."),
    ] = None,
    min_instances: Annotated[
        int | None, typer.Option(min=0, help="Instances that are kept warm; chips cost counts with them.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="Where its artifact lies; otherwise what it says.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="The image that it runs, by its digest (…@sha256:…), for approvals.")
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option(
            help="What ID tokens for it are made for, behind a domain of its own; `origin`: its own again."
        ),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Its predict path. [default: /predict]")] = None,
    rows: RowsOption = None,
    header: HeaderOption = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is ready.")] = 10.0,
    probing: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Whether to ask the backend first.")
    ] = True,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also a backend that breaks the contract, does not answer, or was not asked; the history says so.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Take what a server of another kind looks like, without a question.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    gateway: WatchedGatewayOption = None,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Register a backend for a model.

    It checks the backend, shows what changes, writes it, and waits until a gateway serves it. Model servers of other
    kinds (MLflow, BentoML, Triton, KServe, vetiver, whatever describes itself by OpenAPI, …) are recognised; their path
    and version are proposed.

    Examples:

    `chips register wine http://127.0.0.1:9001`

    `chips register wine https://wine-v2-abc.run.app --traffic 10 --reason "canary"`

    `chips register iris http://127.0.0.1:5000 --yes`
    """
    settings = console.settings_for(registry_url)
    requested = RegistrationRequest(
        name=validated_option(check_model_name, name),
        url=validated_option(check_backend_url, url),
        version=None if version is None else validated_option(check_version, version),
        traffic=traffic,
        model={"owner": owner, "description": description},
        policy={
            "access": access,
            "timeout_s": timeout,
            "body_limit_bytes": body_limit,
            "max_in_flight": max_in_flight,
            "networks": _networks(network),
            "requests_per_s": rate,
            "burst": burst,
            "requests_per_day": per_day,
            "requests_per_month": per_month,
            "pure": pure,
            "cors": _cors(cors_origin, credentials=cors_credentials),
        },
        backend={
            "concurrency": concurrency,
            "resources": given_resources(cpu, memory, min_instances),
            "artifact": artifact,
            "image": image,
            "audience": "" if audience == "origin" else audience,
            "predict_path": path,
        },
    )
    if not probing and version is None:
        raise Failure(
            "--no-probe cannot ask the backend for its version", hint="add --version", code=EX_USAGE
        )
    report = RegistrationReporter(json_at_end=as_json)
    _check_place(settings, requested.url, requested.backend["audience"])
    given = [parse_header(text) for text in header or []]

    async def work() -> None:
        shown = await _credentials(requested, given, force=force) if probing else ()
        seen = BackendInspection(requested)
        if probing:
            seen = await inspect_backend(requested, wait, report, dict(shown), yes=yes, force=force)
            seen = await _checked(settings, seen, report, shown, rows, force=force)
        async with console.open_guarded_registry(settings) as registry:
            outcome = await merge_registration(
                registry,
                seen.requested,
                seen.metadata,
                report,
                console.author_name(by),
                "; ".join(filter(None, (reason, seen.broken))),
                dry_run=dry_run,
                verified=_verification(seen, report) if probing else None,
                force=force,
                store=settings.artifacts,
            )
            if not dry_run:
                address = console.gateway_address(gateway, settings)
                await _tell_live(address, await registry.load_mirrored(), outcome, report, seen)
        report.end()

    console.run_async(work())


async def _credentials(
    requested: RegistrationRequest, given: list[tuple[str, str]], *, force: bool
) -> tuple[tuple[str, str], ...]:
    """What to show the backend; nothing where it asks for more, and the command says what it is. Raises Failure."""
    try:
        return await headers_or_id_token(requested.url, given)
    except CredentialsRefused:
        if force or (requested.backend["predict_path"] and requested.version):
            return ()
        raise


def _verification(seen: BackendInspection, report: RegistrationReporter) -> Verification:
    """What the inspection says about the backend, as evidence."""
    checked = report.facts.get("verified")
    if checked is not None:
        failed = checked["failed"]
        summary = (
            f"{len(failed)} checks failed: {', '.join(failed)}"
            if failed
            else f"{checked['passed']} checks passed"
        )
        return Verification(not failed, summary, checked)
    if seen.service is not None and not seen.broken:
        return Verification(
            passed=True, summary=f"a server of another kind, which answers: {seen.service.kind}", facts={}
        )
    return Verification(passed=False, summary=seen.broken or "it was not checked", facts={})


async def _checked(
    settings: Settings,
    seen: BackendInspection,
    report: RegistrationReporter,
    shown: tuple[tuple[str, str], ...],
    rows: RowsPolicy | None,
    *,
    force: bool,
) -> BackendInspection:
    """Run the conformance checks on one of our backends, and warn where it answers anybody. Raises Failure."""
    requested, metadata = seen.requested, seen.metadata
    if metadata is None:
        return seen
    if seen.service is None:
        published = published_samples(settings, metadata, requested.version or metadata.versions[0])
        if rows is not None:
            published.rows_policy = rows
        broken = await run_conformance_checks(requested, metadata, published, report, shown, force=force)
        seen = seen._replace(broken=broken)
    if not shown and is_non_loopback_https(requested.url):
        report.tell(
            "warning",
            "it answers without credentials, so anybody who knows its address can bypass the gateway; "
            "on Cloud Run, deploy it with --no-allow-unauthenticated",
            style="bold yellow",
            open=True,
        )
    return seen


def _check_place(settings: Settings, url: str, audience: str | None) -> None:
    """Refuse what the gateway would not connect to, here, where somebody can fix it."""
    upstream = settings.upstream
    egress_policy = EgressPolicy(
        upstream.policy,
        hosts=upstream.hosts,
        networks=[parse_network(network) for network in upstream.networks],
    )
    try:
        egress_policy.resolve_and_check_url(url)
    except EgressRefused as refused:
        raise Failure(str(refused), code=EX_DATAERR) from None
    if audience and not egress_policy.may_choose_audience(url):
        raise Failure(
            "an audience is for backends behind a domain of your own, and upstream.hosts does not name this one",
            hint="without --audience, tokens are made for the backend's own origin",
            code=EX_DATAERR,
        )


def is_non_loopback_https(url: str) -> bool:
    """Whether the URL is https and not this machine's. Others may reach such a backend too, on Cloud Run for example."""
    host = urlsplit(url).hostname or ""
    try:
        return url.startswith("https://") and not ip_address(host).is_loopback
    except ValueError:
        return url.startswith("https://") and host != "localhost"


def _networks(given: list[str] | None) -> tuple[str, ...] | None:
    return () if given == ["any"] else tuple(given) if given else None


# What a page needs to send a request and to read what came of it.
_CORS_HEADERS = (
    "authorization",
    "content-type",
    "traceparent",
    "x-api-key",
    "x-request-id",
    "x-request-timeout",
)


def _cors(origins: list[str] | None, *, credentials: bool) -> dict[str, CorsRule] | None:
    if not origins:
        return None
    rule = CorsRule(allow_headers=_CORS_HEADERS, allow_credentials=credentials, max_age=600)
    return {} if origins == ["none"] else dict.fromkeys(origins, rule)


async def _tell_live(
    address: str,
    listing: MirroredListing,
    outcome: RegisteredVersion,
    report: RegistrationReporter,
    seen: BackendInspection,
) -> None:
    """Wait for a running gateway, where there is one, and say whether it serves all of `listing`."""
    obstacle = await wait_until_served(address, listing)
    model = outcome.model
    if not obstacle and not model.enabled:
        obstacle = f"{model.name} is disabled; take it into service with: chips enable {model.name}"
    if obstacle:
        report.tell("not live", obstacle, style="bold yellow")
        return
    percent = model.traffic.get(outcome.version, 0)
    target = f"{address}/{model.name}"
    report.tell(
        "live",
        f"{target} (version {outcome.version} takes {percent} % of the traffic)",
        style="bold green",
        live=True,
        address=target,
    )
    service = seen.service
    key = "" if model.policy.access == "public" else " -H 'X-Api-Key: …'"
    body = (
        example_request_json(service)
        if service is not None
        else f'{{"instances": [{_example(model, outcome.version, seen.metadata)}]}}'
    )
    backend = model.backend(outcome.version)
    if service is None and backend is not None and backend.predict_path != _OUR_PATH:
        return  # what it takes is not known
    report.tell("try", f"curl {shlex.quote(target)}{key} --json {shlex.quote(body)}")


def _example(model: Model, version: str, metadata: ModelMetadata | None) -> str:
    """An instance with the model's own field names and types, so that the line can be pasted and filled in."""
    backend = model.backend(version)
    example = example_instance(backend.inputs) if backend is not None else None
    if example is None:
        return "…"
    example = {name: 0 if value == 1 and value is not True else value for name, value in example.items()}
    known = metadata.parameters.get("categories") if metadata is not None else None
    for name, values in (known if isinstance(known, dict) else {}).items():
        if name in example and isinstance(values, list) and values:
            example[name] = values[0]  # another one is refused
    return msgspec.json.encode(example).decode()

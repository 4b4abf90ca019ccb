"""The checks of `chips doctor`: each looks at one thing and yields findings."""

import importlib.util
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from gateway.artifacts.artifact_store_interface import StoreError
from gateway.artifacts.open_store_by_url import open_store
from gateway.cli.support import console
from gateway.cli.support.connection_errors import connection_error_text
from gateway.core.model import Model, parse_model
from gateway.registry.base import MODELS, MirroredListing
from gateway.settings import (
    Settings,
    gcloud_endpoint_override,
    process_environment,
    state_folder,
)

CLOUD_RUN_BODY_BYTES: Final = 32 * 1024 * 1024  # over HTTP/1


_GATEWAY_S: Final = 5.0
_SKEW_S: Final = 30.0  # signed tokens allow about that much


Outcome = Literal["ok", "warning", "wrong", "skipped"]


class Finding(NamedTuple):
    """One finding of `chips doctor`. It has subject, outcome, text, and the command that fixes it."""

    subject: str
    outcome: Outcome
    text: str
    fix: str = ""


def check_programs_and_packages() -> Sequence[Finding]:
    """Check the programs and Python packages that commands need."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = [Finding("python", "ok", version)]
    for program, purpose, fix in (
        ("Rscript", "to run R backends here", "apt install r-base-core r-cran-plumber"),
        ("julia", "to run Julia backends here", "see backends/julia/README.md"),
        ("gcloud", "to log in to Google Cloud", "see cloud.google.com/sdk"),
        ("terraform", "to set up Google Cloud", "see deploy/README.md"),
    ):
        path = shutil.which(program)
        found.append(
            Finding(program, "ok", path)
            if path
            else Finding(program, "skipped", f"not installed; needed {purpose}", fix)
        )
    if importlib.util.find_spec("chips_backend") is None:
        found.append(
            Finding(
                "chips-backend",
                "skipped",
                "not installed; needed to run Python backends here",
                "pip install chips-backend",
            )
        )
    return found


def check_emulator_variables(settings: Settings) -> Sequence[Finding]:
    """Check that no emulator variable diverts cloud commands to a test server. One is `FIRESTORE_EMULATOR_HOST`."""
    environ = process_environment()
    found = []
    for name, used in (
        ("FIRESTORE_EMULATOR_HOST", settings.registry.startswith("firestore://")),
        ("STORAGE_EMULATOR_HOST", settings.artifacts.startswith("gs://")),
    ):
        if environ.get(name):
            text = f"set to {environ[name]}, so " + (
                "this is not the cloud" if used else "it is not used here"
            )
            found.append(Finding(name, "warning" if used else "ok", text, f"unset {name}" if used else ""))
    return found


def check_google_credentials(settings: Settings) -> Sequence[Finding]:
    """Check the Google credentials and their project. Skipped where the settings need no Google Cloud."""
    environ = process_environment()
    needs = (settings.registry.startswith("firestore://") and not environ.get("FIRESTORE_EMULATOR_HOST")) or (
        settings.artifacts.startswith("gs://") and not environ.get("STORAGE_EMULATOR_HOST")
    )
    if not needs:
        return [Finding("credentials", "skipped", "nothing here needs Google Cloud")]
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Request())
    except GoogleAuthError as error:
        return [
            Finding(
                "credentials", "wrong", str(error).splitlines()[0], "gcloud auth application-default login"
            )
        ]
    who = getattr(credentials, "service_account_email", None) or "your own account"
    chosen = console.chosen_environment()
    wanted = chosen.environment.project if chosen is not None else ""
    found = [Finding("credentials", "ok", f"{who}, project {project or 'not set'}")]
    if wanted and project and wanted != project:
        found.append(
            Finding(
                "project",
                "warning",
                f"the environment says {wanted}, your credentials' default is {project}",
                f"gcloud auth application-default set-quota-project {wanted}",
            )
        )
    return found


def check_artifact_store(settings: Settings) -> Finding:
    """Check that the artifact store can be opened and read."""
    if not settings.artifacts:
        return Finding(
            "artifacts",
            "skipped",
            "no artifact store is set",
            "set CHIPS_ARTIFACTS, or artifacts in the environment",
        )
    try:
        with closing(open_store(settings.artifacts, upload_state_folder=state_folder())) as store:
            store.manifest("chips-doctor", "0")  # that it is not there is an answer
    except StoreError as error:
        return Finding(
            "artifacts",
            "wrong",
            str(error),
            "is the bucket right, and may you read it? docs/how-to/permissions.md",
        )
    folder = Path(settings.artifacts.removeprefix("file://"))
    if "://" not in str(folder) and folder.exists() and not folder.is_dir():
        return Finding(
            "artifacts",
            "wrong",
            f"{folder} is a file, not a folder",
            "set CHIPS_ARTIFACTS to a folder or gs://",
        )
    return Finding("artifacts", "ok", settings.artifacts)


def check_anchor_store_configured(settings: Settings) -> Finding:
    """Check that the settings name an anchor store. The store itself is not opened.

    It is the second place, where the heads of the history are kept apart from the registry.
    """
    if settings.audit.second_place:
        return Finding("history", "ok", f"its heads are kept in {settings.audit.second_place}")
    return Finding("history", "skipped", "its heads are kept in no second place (audit.second_place)")


def read_models(listing: MirroredListing) -> tuple[list[Model], list[Finding]]:
    """The models of a registry listing, and a finding for each damaged one."""
    models, problems = [], []
    for document in listing.documents:
        if document.kind == MODELS:
            try:
                models.append(parse_model(document.body))
            except ValueError as error:
                problems.append(
                    Finding(
                        document.name,
                        "wrong",
                        f"its document cannot be read: {error}",
                        f"chips history {document.name}",
                    )
                )
    return models, problems


async def check_gateway(address: str, listing: MirroredListing) -> AsyncGenerator[Finding, None]:
    """Check that the gateway at `address` serves this state of the registry."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_GATEWAY_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(f"{address}/-/ready", params={"registry": listing.registry_id}) as answer,
        ):
            now = time.time()
            content: Any = await answer.json(content_type=None)
            date = answer.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = connection_error_text(error, address, _GATEWAY_S)
        yield Finding("gateway", "warning", f"none answers at {address}: {reason}", "chips serve")
        return
    seen = content.get("registry") if isinstance(content, dict) else None
    seen = seen if isinstance(seen, dict) else {}
    if isinstance(content, dict) and content.get("ready") is False:
        yield Finding(
            "gateway", "wrong", f"the one at {address} has not read its registry yet", "its log says why"
        )
    elif seen.get("id") != listing.registry_id:
        yield Finding(
            "gateway",
            "warning",
            f"the one at {address} reads another registry",
            "is CHIPS_REGISTRY the same there?",
        )
    elif seen.get("generation", -1) < listing.generation:
        text = f"it has generation {seen.get('generation')}, the registry {listing.generation}"
        yield Finding("gateway", "wrong", text, "its log says why it cannot read the registry")
    elif seen.get("held"):
        yield Finding(
            "gateway", "wrong", f"it serves an older state: {seen['held']}", "see docs/how-to/restore.md"
        )
    else:
        yield Finding("gateway", "ok", f"{address} serves generation {seen.get('generation')}")
    if date is not None:
        skew_s = abs(parsedate_to_datetime(date).timestamp() - now)
        if skew_s > _SKEW_S:
            yield Finding(
                "clock",
                "wrong",
                f"the gateway's clock and this one differ by {skew_s:.0f} s",
                "timedatectl set-ntp true",
            )
        else:
            yield Finding("clock", "ok", "the gateway's and this one agree")


def check_cloud_run_body_limit(model: Model) -> Sequence[Finding]:
    """Check that Cloud Run takes bodies up to the model's body limit. Only for a model with backends on Cloud Run."""
    limit = model.policy.body_limit_bytes
    on_cloud_run = [backend for backend in model.backends if ".run.app" in backend.url]
    if limit is None or limit <= CLOUD_RUN_BODY_BYTES or not on_cloud_run:
        return []
    return [
        Finding(
            model.name,
            "warning",
            f"its body limit of {limit} bytes is above the {CLOUD_RUN_BODY_BYTES} that Cloud Run takes",
            f"chips register {model.name} URL --body-limit {CLOUD_RUN_BODY_BYTES}",
        )
    ]


def check_takes_traffic(model: Model) -> Sequence[Finding]:
    """Check that at least one version of an enabled model takes traffic."""
    if not model.enabled or any(model.traffic.values()):
        return []
    fix = f"chips traffic {model.name} VERSION=100"
    return [Finding(model.name, "wrong", "no version of it takes traffic", fix)]


def check_cloud_run_services(models: Sequence[Model]) -> Sequence[Finding]:
    """Check that the models' Cloud Run services match their registration."""
    chosen = console.chosen_environment()
    if chosen is None or not chosen.environment.project or not chosen.environment.region:
        return []
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    from gateway.deploy.cloud_run import service_name
    from gateway.deploy.google_clients import GoogleClients

    place, services = chosen.environment, GoogleClients(gcloud_endpoint_override).services
    found = []
    for model in models:
        name = f"projects/{place.project}/locations/{place.region}/services/{service_name(model.name)}"
        subject = f"{model.name} on Cloud Run"
        try:
            template = services.get_service(name=name, timeout=10).template
        except exceptions.NotFound:
            found.append(Finding(subject, "skipped", "it has no service there"))
            continue
        except (exceptions.GoogleAPICallError, exceptions.RetryError, GoogleAuthError) as error:
            found.append(
                Finding(
                    subject, "wrong", str(error).splitlines()[0], "docs/how-to/permissions.md has the roles"
                )
            )
            break
        found += _compared(model, template, subject)
    return found


def _compared(model: Model, template: Any, subject: str) -> Sequence[Finding]:
    found = []
    allowed_s = template.timeout.total_seconds() if template.timeout else 0.0
    if allowed_s and model.policy.timeout_s > allowed_s:
        found.append(
            Finding(
                subject,
                "wrong",
                f"its time-out in the registry is {model.policy.timeout_s:g} s, but Cloud Run cuts after {allowed_s:g} s",
                f"set timeout_s in backend.toml and deploy it again, or: chips register {model.name} URL --timeout {allowed_s:g}",
            )
        )
    given = template.max_instance_request_concurrency
    declared = {backend.concurrency for backend in model.backends if model.traffic.get(backend.version)}
    if given and declared and None not in declared and given not in declared:
        shown = ", ".join(map(str, sorted(number for number in declared if number is not None)))
        found.append(
            Finding(
                subject,
                "warning",
                f"Cloud Run sends {given} requests at once, registered are {shown}",
                "set concurrency in backend.toml to what one instance truly runs, and deploy it again",
            )
        )
    found += _image_findings(model, template, subject)
    return found or [Finding(subject, "ok", f"{allowed_s:g} s, {given} at once")]


def _image_findings(model: Model, template: Any, subject: str) -> Sequence[Finding]:
    """Whether the newest revision runs an image by its digest, and one that is registered."""
    image = template.containers[0].image if template.containers else ""
    registered = {digest for one in model.backends if (digest := one.image.partition("@")[2])}
    if not image or not registered:
        return []
    digest = image.partition("@")[2]
    if not digest:
        text, fix = f"it runs {image}, by a tag, which can move", "deploy it by …@sha256:…"
    elif digest not in registered:
        text, fix = (
            f"it runs {image}, and no version is registered with that image",
            "deploy what is registered",
        )
    else:
        return []
    return [Finding(subject, "wrong", text, f"chips deploy FOLDER --image IMAGE@sha256:…: {fix}")]

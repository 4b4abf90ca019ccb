"""`chips deploy` and `chips undeploy`: deploy a version, or end it and its backend.

A backend folder is deployed as a registered version.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from gateway.cli.deployment.deployment_run import (
    DeploymentRun,
    StepReporter,
    check_same_owner,
    run_deployment,
)
from gateway.cli.deployment.dry_run_checks import check_without_changes
from gateway.cli.deployment.input_signature_changes import input_signature_changes
from gateway.cli.deployment.redeploy_on_change import watch_folder
from gateway.cli.deployment.refresh_copied_model import bring_model_up_to_date
from gateway.cli.models.deregister_disable_enable import deregister_version
from gateway.cli.support import console
from gateway.cli.support.console import EX_CONFIG, EX_DATAERR, EX_USAGE, Failure
from gateway.core.name_validation import check_model_name, check_version
from gateway.deploy.backend_folder import BackendFolder, FolderError
from gateway.deploy.target import DeployError, DeploymentTarget
from gateway.settings import Settings, gcloud_endpoint_override, process_environment, state_folder

_PLACES = (Path(), Path("models"), Path("backends"))

TargetOption = Annotated[
    Literal["local", "cloud-run"] | None,
    typer.Option(
        "--target",
        help="A process here, or Cloud Run. [default: cloud-run where the environment has a project]",
    ),
]


def deploy(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR|NAME", help="A folder with backend.toml, or its name below models/ or backends/."
        ),
    ],
    version: Annotated[str | None, typer.Option(help="The version; otherwise backend.toml's.")] = None,
    target: TargetOption = None,
    image: Annotated[str, typer.Option(help="Use this image (…@sha256:…) and build none.")] = "",
    traffic: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Percent for this version. [default: 0; 100 for a model's first]"),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers questions about the model.")] = None,
    trying: Annotated[
        bool,
        typer.Option("--try/--no-try", help="Whether to load and score the model before a version is spent."),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked, the model too; change nothing.")
    ] = False,
    refresh: Annotated[
        bool | None,
        typer.Option(
            "--refresh/--no-refresh",
            help="Whether to take a copied model again from its source (source.json). [default: where the source has changed]",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Deploy here, as version VERSION-dev, and again whenever a file of the folder changes.",
        ),
    ] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Deploy a folder as a version, which takes no traffic yet.

    The steps are check, try, publish, build, start, verify and register.

    Interrupted or failed, the same command goes on where it stopped; with other code or another model, with those.

    Examples:

    `chips deploy models/wine --version 4`

    `chips deploy models/wine --target local`
    """
    settings = console.settings_for(registry_url)
    path = _find_folder(folder)
    if watch:
        if as_json or image or target == "cloud-run" or refresh is not None:
            raise Failure("--watch deploys to this machine, for people", code=EX_USAGE)
        watch_folder(_read_folder(path, version), settings, console.author_name(by), owner)
        return
    with bring_model_up_to_date(path, refresh=refresh, dry_run=dry_run) as artifact:
        source = _read_folder(path, version, artifact)
        run = DeploymentRun(
            source=source,
            target=_target(target, settings, image=image),
            settings=settings,
            author=console.author_name(by),
            owner=owner or source.settings.owner or None,
            traffic=traffic,
            reason=reason,
            trying=trying,
        )
        if dry_run:
            check_without_changes(run, as_json=as_json)
            return
        report = StepReporter(json_at_end=as_json)
        console.run_async(check_same_owner(run))
        console.confirm_protected_write(settings)
        report.summarize(run, run_deployment(run, report))
        changed = console.run_async(input_signature_changes(settings, source.model, source.version))
        if changed:
            console.err.print(f"warning: {changed}", style="yellow")


def undeploy(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Option("--version", help="The version to end.")],
    target: TargetOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where it takes traffic; the others take it over.")
    ] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Take a version out of the registry, then end its backend.

    The artifact and the history stay.

    Example: `chips undeploy wine --version 3`
    """
    try:
        check_model_name(name)
        check_version(version)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    settings = console.settings_for(registry_url)
    chosen = _target(target, settings, image="")
    console.confirm_protected_write(settings)
    removed = console.run_async(
        deregister_version(
            settings, name, version, despite_traffic=force, author=console.author_name(by), reason=reason
        )
    )
    try:
        stopped = chosen.stop(name, version)
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from error
    if not removed and not stopped:
        raise Failure(f"{name}@{version} is neither registered nor running", code=EX_DATAERR)
    if as_json:
        console.print_json({"model": name, "version": version, "deregistered": removed, "stopped": stopped})
        return
    console.say(f"{name}@{version}", "out of the registry" if removed else "was not in the registry")
    console.say("", "its backend ended" if stopped else "no backend of it ran")


def _find_folder(given: str) -> Path:
    path = next((place / given for place in _PLACES if (place / given).is_dir()), None)
    if path is None:
        raise Failure(
            f"there is no folder {given}, nor models/{given} or backends/{given}",
            hint="chips new writes one",
            code=EX_DATAERR,
        )
    return path


def _read_folder(path: Path, version: str | None, artifact: Path | None = None) -> BackendFolder:
    try:
        return BackendFolder(path, version=version, artifact=artifact)
    except FolderError as error:
        raise Failure(str(error), code=EX_DATAERR) from None


def _target(wanted: str | None, settings: Settings, *, image: str) -> DeploymentTarget:
    chosen = console.chosen_environment()
    environment = chosen.environment if chosen is not None else None
    if wanted is None:
        wanted = "cloud-run" if environment is not None and environment.project else "local"
    if wanted == "local":
        from gateway.deploy.local_process_target import LocalProcessTarget

        return LocalProcessTarget(state_folder() / "local", process_environment())
    if environment is None:
        raise Failure(
            "Cloud Run needs an environment that says where",
            hint="chips env list; chips --env NAME deploy …",
            code=EX_CONFIG,
        )
    if not settings.artifacts.startswith("gs://"):
        raise Failure(
            "Cloud Run fetches artifacts from Cloud Storage, but the artifact store is "
            f"{settings.artifacts or 'not set'}",
            hint="set artifacts to gs://bucket in the environment",
            code=EX_CONFIG,
        )
    from gateway.deploy.cloud_run import CloudRunLocation, CloudRunTarget
    from gateway.deploy.google_clients import GoogleClients

    place = CloudRunLocation(
        project=environment.project,
        region=environment.region,
        images=environment.images,
        account=environment.account,
    )
    bucket = settings.artifacts.removeprefix("gs://").partition("/")[0]
    return CloudRunTarget(
        place, GoogleClients(gcloud_endpoint_override), build_source_bucket=bucket, image=image
    )

"""`chips deploy` and `chips undeploy`: from a backend folder to a version in the registry by one command."""

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.artifacts.manifest import Sample, Signature, build_manifest, collect_files, guess_format
from gateway.artifacts.store import AlreadyPublished, StoreError, open_store
from gateway.cli.deployment.publish import packages_here, read_json, store_failure
from gateway.cli.models.deregister import remove_version
from gateway.cli.models.register import Wish, enter
from gateway.cli.support import console
from gateway.cli.support.console import EX_CONFIG, EX_DATAERR, EX_PROTOCOL, Failure
from gateway.core.names import check_model_name, check_version
from gateway.deploy.folder import BackendFolder, FolderError
from gateway.deploy.steps import STEPS
from gateway.deploy.steps import deploy as take_steps
from gateway.deploy.target import Deployed, DeployError, Target, Tell
from gateway.registry.base import MODELS
from gateway.settings import Settings, endpoint_override, process_environment, state_folder
from gateway.verify.run import BackendNotReady, ManifestPart, choose, read_samples, verify

_VERIFY_WAIT_S = 30.0
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
    owner: Annotated[str | None, typer.Option(help="Whom to ask about the model.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Publish, build, start, verify and register a version, which takes no traffic yet.

    Interrupted or failed, the same command goes on where it stopped.

    Examples:

    `chips deploy models/wine --version 4`

    `chips deploy models/wine --target local`
    """
    settings = console.settings_for(registry_url)
    source = _folder(folder, version)
    chosen = _target(target, settings, image=image)
    report = _Report(as_json=as_json)
    if dry_run:
        _plan(source, chosen, settings, as_json=as_json)
        return
    owner = owner or source.settings.owner or None
    console.run(_check_owner(settings, source.model, owner))
    console.confirm_write(settings)
    author = console.author(by)

    def register(source: BackendFolder, deployed: Deployed, _: Tell) -> str:
        wish = Wish(
            name=source.model,
            url=deployed.url,
            version=source.version,
            traffic=traffic,
            model={"owner": owner},
            policy={"timeout_s": source.settings.timeout_s if source.settings.timeout_s != 60.0 else None},
            backend={"concurrency": source.settings.concurrency},
        )
        entered = console.run(
            enter(settings, wish, author=author, reason=reason, headers=chosen.credentials(deployed.url))
        )
        report.facts |= entered
        share = entered["traffic"].get(source.version, 0)
        return f"{source.model}@{source.version} takes {share} % of the traffic"

    try:
        deployed = take_steps(
            source,
            chosen,
            report,
            publish=lambda source, tell: _publish(source, settings, author, tell),
            verify=lambda source, deployed, tell: _verify(source, deployed, chosen, tell),
            register=register,
        )
    except DeployError as error:
        raise Failure(f"{report.step}: {error}", hint=error.hint or report.resume, code=error.code) from error
    except FolderError as error:
        raise Failure(str(error), code=EX_DATAERR) from error
    report.summarize(source, deployed, chosen)


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
    """Take a version out of the registry, then end its backend. The artifact and the history stay.

    Example: `chips undeploy wine --version 3`
    """
    try:
        check_model_name(name)
        check_version(version)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    settings = console.settings_for(registry_url)
    chosen = _target(target, settings, image="")
    console.confirm_write(settings)
    removed = console.run(
        remove_version(settings, name, version, force=force, author=console.author(by), reason=reason)
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


class _Report:
    """Steps as they go, for people; one document at the end, for machines."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self.step = ""
        self.facts: dict[str, Any] = {"steps": {}}
        self.resume = "mend it and run the same command again: what is done is not done twice"

    def begin(self, step: str) -> None:
        self.step = step
        if not self._as_json:
            number = next(i for i, (name, _) in enumerate(STEPS, 1) if name == step)
            console.out.print(f"{number}/{len(STEPS)} {step}", style="bold")

    def tell(self, text: str) -> None:
        if not self._as_json:
            console.out.print(f"    {text}", style="dim")

    def end(self, step: str, outcome: str) -> None:
        self.facts["steps"][step] = outcome
        if outcome and not self._as_json:
            console.out.print(f"    {outcome}")

    def summarize(self, source: BackendFolder, deployed: Deployed, target: Target) -> None:
        took_s = time.monotonic() - self._began
        if self._as_json:
            console.print_json(
                {
                    "model": source.model,
                    "version": source.version,
                    "target": target.name,
                    "url": deployed.url,
                    "took_s": round(took_s, 3),
                    **self.facts,
                }
            )
            return
        console.say("deployed", f"{source.model}@{source.version} in {took_s:.0f} s", style="bold green")
        if not self.facts.get("traffic", {}).get(source.version):
            others = [v for v, share in self.facts["traffic"].items() if share]
            rest = f" {others[0]}=90" if len(others) == 1 else " …"
            console.say("next", f"chips traffic {source.model}{rest} {source.version}=10")


async def _check_owner(settings: Settings, name: str, owner: str | None) -> None:
    """Before anything is made: a name that belongs to somebody else is not taken by deploying to it."""
    async with console.registry_at(settings) as registry:
        document = await registry.read(MODELS, name)
    known = "" if document is None else console.read_model(document).owner
    if owner and known and owner != known:
        raise Failure(
            f'the name "{name}" belongs to {known}, and this would be {owner}\'s',
            hint=f"choose another name, or let {known} hand it over: chips register {name} URL --owner {owner}",
            code=EX_DATAERR,
        )


def _folder(given: str, version: str | None) -> BackendFolder:
    path = next((place / given for place in _PLACES if (place / given).is_dir()), None)
    if path is None:
        raise Failure(
            f"there is no folder {given}, nor models/{given} or backends/{given}",
            hint="chips new writes one",
            code=EX_DATAERR,
        )
    try:
        return BackendFolder(path, version=version)
    except FolderError as error:
        raise Failure(str(error), code=EX_DATAERR) from None


def _target(wanted: str | None, settings: Settings, *, image: str) -> Target:
    chosen = console.chosen_environment()
    environment = chosen.environment if chosen is not None else None
    if wanted is None:
        wanted = "cloud-run" if environment is not None and environment.project else "local"
    if wanted == "local":
        from gateway.deploy.local import LocalTarget

        return LocalTarget(state_folder() / "local", process_environment())
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
    from gateway.deploy.google import Google

    place = CloudRunLocation(
        project=environment.project,
        region=environment.region,
        images=environment.images,
        account=environment.account,
    )
    bucket = settings.artifacts.removeprefix("gs://").partition("/")[0]
    return CloudRunTarget(place, Google(endpoint_override), bucket=bucket, image=image)


def _plan(source: BackendFolder, target: Target, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        console.print_json(
            {
                "model": source.model,
                "version": source.version,
                "target": target.name,
                "artifacts": settings.artifacts,
                "steps": [name for name, _ in STEPS],
            }
        )
        return
    console.say("plan", f"{source.model}@{source.version} from {source.path} to {target.name}")
    for number, (name, what) in enumerate(STEPS, 1):
        console.say(f"  {number} {name}", what)
    console.say("dry run", "nothing was done", style="bold yellow")


def _publish(source: BackendFolder, settings: Settings, author: str, tell: Tell) -> str:
    """Publish the artifact; return its address."""
    try:
        files = collect_files(source.artifact)
        kind = source.settings.format or guess_format(files)
        manifest = build_manifest(
            files,
            model=source.model,
            version=source.version,
            format=kind,
            created_by=author,
            runtime=packages_here(kind),
            signature=read_json(source.beside("signature"), Signature),
            samples=read_json(source.beside("samples"), list[Sample]) or (),
            rows=source.settings.rows,
        )
    except ValueError as error:
        raise DeployError(str(error), code=EX_DATAERR) from None
    try:
        with closing(open_store(settings.artifacts, state_folder=state_folder())) as store:
            is_new = store.publish(manifest, dict(files), lambda _: None)
            tell(f"{manifest.total_bytes} bytes" + ("" if is_new else ", there already"))
            return store.address(source.model, source.version)
    except AlreadyPublished as error:
        raise DeployError(str(error), hint="deploy it under another --version", code=73) from error
    except StoreError as error:
        failure = store_failure(error)
        raise DeployError(failure.message, hint=failure.hint, code=failure.code) from error


def _verify(source: BackendFolder, deployed: Deployed, target: Target, tell: Tell) -> str:
    """The short form of `chips verify`, and the folder's own samples."""
    samples = source.beside("samples")
    try:
        manifest = read_samples(samples) if samples is not None else ManifestPart()
        manifest.rows = source.settings.rows
        report = console.run(
            verify(
                deployed.url,
                model=source.model,
                version=source.version,
                manifest=manifest,
                process=None,
                fields=tuple(target.credentials(deployed.url).items()),
                checks=choose([], short=True),
                wait_s=_VERIFY_WAIT_S,
                on_result=lambda result: (
                    tell(f"{result.check.name}: {result.why}") if result.outcome == "failed" else None
                ),
            )
        )
    except ValueError as error:
        raise DeployError(str(error), code=EX_DATAERR) from None
    except BackendNotReady as error:
        raise DeployError(
            str(error),
            hint="can it be reached from here? deploy/README.md says how to verify a closed service",
        ) from None
    if report.failed:
        raise DeployError(
            f"{len(report.failed)} of {len(report.results)} checks failed; it takes no traffic and is not registered",
            hint=f"chips verify {deployed.url} tells all",
            code=EX_PROTOCOL,
        )
    return f"{report.count('passed')} checks of the contract passed"

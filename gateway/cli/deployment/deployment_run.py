"""Run one deployment step by step, and report each step.

The steps are check, try, publish, build, start, verify and register.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from gateway.artifacts.artifact_store_interface import (
    ArtifactStore,
    PublishedWithOtherContent,
    StoreError,
    is_published,
)
from gateway.artifacts.open_store_by_url import open_store
from gateway.artifacts.prepare_artifact import PreparedArtifact, prepare_artifact
from gateway.cli.artifacts.publish import PYTHON_FORMATS, store_failure
from gateway.cli.deployment.example_call import example_shell_commands
from gateway.cli.deployment.prepare_unpublished_backend import prepare_backend_command
from gateway.cli.models.backend_inspection import RegistrationRequest
from gateway.cli.models.merge_registration import Verification, register_backend
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_PROTOCOL, Failure
from gateway.cost.estimate import memory_needed_gib
from gateway.deploy.backend_folder import BackendFolder, FolderError
from gateway.deploy.deployment_steps import STEPS
from gateway.deploy.deployment_steps import deploy as take_steps
from gateway.deploy.target import DeployedBackend, DeployError, DeploymentTarget, StepSummary, Tell
from gateway.deploy.try_unpublished_artifact import ArtifactRejected, try_unpublished_artifact
from gateway.registry.base import MODELS
from gateway.settings import Settings, environment_for_backend, state_folder
from gateway.verify.report import as_evidence
from gateway.verify.run import (
    ArtifactManifestSubset,
    BackendNotReady,
    read_samples,
    select_checks,
    verify,
)

_VERIFY_WAIT_S: Final = 30.0


@dataclass
class DeploymentRun:
    """One run of a deployment, with the options of the command. It says what is deployed where and by which author."""

    source: BackendFolder
    target: DeploymentTarget
    settings: Settings
    author: str
    owner: str | None = None
    traffic: int | None = None
    reason: str = ""
    trying: bool = True
    _prepared: list[PreparedArtifact] = field(default_factory=list)

    @property
    def prepared_artifact(self) -> PreparedArtifact:
        """The prepared artifact of this deployment, made once. Raises DeployError."""
        if not self._prepared:
            settings = self.source.settings
            try:
                found = prepare_artifact(
                    self.source.artifact,
                    model=self.source.model,
                    version=self.source.version,
                    created_by=self.author,
                    format=settings.format,
                    signature=self.source.signature_or_samples_file("signature"),
                    samples=self.source.signature_or_samples_file("samples"),
                    rows=settings.rows,
                    pure=settings.pure,
                )
            except ValueError as error:
                raise DeployError(
                    str(error), hint="fix it, then run the same command again", code=EX_DATAERR
                ) from None
            self._prepared.append(found)
        return self._prepared[0]

    @property
    def artifact_store_url(self) -> str:
        """The URL of the artifact store to publish to.

        Where the settings name none, a deployment to this machine has a folder of its own.
        """
        is_local = self.target.name == "local"
        return self.settings.artifacts or (str(state_folder() / "artifacts") if is_local else "")

    def open_artifact_store(self) -> ArtifactStore:
        return open_store(self.artifact_store_url, upload_state_folder=state_folder())


class StepReporter:
    """Reports the steps of a deployment. It reports each as it begins and ends, or all in one JSON document at the end."""

    def __init__(self, *, json_at_end: bool) -> None:
        self._json_at_end = json_at_end
        self._began = time.monotonic()
        self.step = ""
        self.facts: dict[str, Any] = {"steps": {}}

    def begin(self, step: str) -> None:
        self.step = step
        if not self._json_at_end:
            number = next(i for i, (name, _) in enumerate(STEPS, 1) if name == step)
            console.out.print(f"{number}/{len(STEPS)} {step}", style="bold")

    def tell(self, text: str) -> None:
        if not self._json_at_end:
            _indented(text, style="dim")

    def end(self, step: str, outcome: str) -> None:
        self.facts["steps"][step] = outcome
        if outcome and not self._json_at_end:
            _indented(outcome)

    def summarize(self, run: DeploymentRun, deployed: DeployedBackend) -> None:
        took_s = time.monotonic() - self._began
        source = run.source
        if self._json_at_end:
            console.print_json(
                {
                    "model": source.model,
                    "version": source.version,
                    "target": run.target.name,
                    "url": deployed.url,
                    "took_s": round(took_s, 3),
                    "unchanged": self._is_unchanged(deployed),
                    **self.facts,
                }
            )
            return
        share = self.facts["traffic"].get(source.version, 0)
        if self._is_unchanged(deployed):
            console.say(
                "unchanged",
                f"{source.model}@{source.version} runs already with this model and this code at {deployed.url}, and takes "
                f"{share} % of the traffic",
                style="bold green",
            )
        else:
            console.say("deployed", f"{source.model}@{source.version} in {took_s:.0f} s", style="bold green")
        if not share:
            others = [v for v, percent in self.facts["traffic"].items() if percent]
            rest = f" {others[0]}=90" if len(others) == 1 else " …"
            console.say("next", f"chips traffic {source.model}{rest} {source.version}=10")
        self._show_call(run, deployed, share)

    def _show_call(self, run: DeploymentRun, deployed: DeployedBackend, share: int) -> None:
        """How to call it: at the gateway, or a version without traffic at its own address, where that is this machine."""
        if not share and run.target.name != "local":
            return
        gateway = f"{console.gateway_address(None, run.settings)}/{run.source.model}"
        address = gateway if share else f"{deployed.url}/predict"
        needs_key = bool(share) and self.facts.get("access") != "public"
        for label, line in example_shell_commands(
            address, run.prepared_artifact.manifest, needs_key=needs_key
        ):
            console.say(label, line)

    def _is_unchanged(self, deployed: DeployedBackend) -> bool:
        return not deployed.is_new and not self.facts.get("changes")


def _indented(text: str, style: str = "") -> None:
    for line in text.splitlines():
        console.out.print(f"    {line}", style=style)


def run_deployment(run: DeploymentRun, report: StepReporter) -> DeployedBackend:
    """Take all steps of a deployment.

    Raises Failure with a hint for the step that failed. Nothing is undone: the same command, given again, goes on there.
    """
    try:
        return take_steps(
            run.source,
            run.target,
            report,
            check=lambda _, tell: check_artifact_publishable(run, tell),
            try_=lambda _, tell: try_artifact(run, tell),
            publish=lambda _, tell: _publish(run, tell),
            verify=lambda _, deployed, tell: _verify(run, deployed, report, tell),
            register=lambda _, deployed, __: _register(run, deployed, report),
        )
    except DeployError as error:
        raise Failure(
            f"{report.step}: {error}", hint=error.hint or hint_of_step(report.step, run), code=error.code
        ) from error
    except FolderError as error:
        raise Failure(str(error), code=EX_DATAERR) from error


def hint_of_step(step: str, run: DeploymentRun) -> str:
    """What to do when `step` has failed."""
    again = "fix it and run the same command again: it takes the changed files, and no version was spent"
    return {
        "check": again,
        "try": again,
        "start": f"chips logs {run.source.model} --version {run.source.version} shows all that it said; then {again}"
        if run.target.name == "local"
        else "the log of the revision says why; fix it and run the same command again",
    }.get(step, "run the same command again: what is done is not repeated")


async def check_same_owner(run: DeploymentRun) -> None:
    """Check that the model does not belong to another owner. Called before anything is made. Raises Failure."""
    name, owner = run.source.model, run.owner
    async with console.open_guarded_registry(run.settings) as registry:
        document = await registry.read(MODELS, name)
    known = "" if document is None else console.read_model(document).owner
    if owner and known and owner != known:
        raise Failure(
            f'the name "{name}" belongs to {known}, and this would be {owner}\'s',
            hint=f"choose another name, or let {known} hand it over: chips register {name} URL --owner {shlex.quote(owner)}",
            code=EX_DATAERR,
        )


def check_artifact_publishable(run: DeploymentRun, tell: Tell) -> StepSummary:
    """Check that the artifact can be published.

    Returns a summary of it. It must be possible under its version. Called before anything is started. Raises DeployError.
    """
    prepared = run.prepared_artifact
    manifest = prepared.manifest
    for warning in [*prepared.warnings, *_too_little_memory(run)]:
        tell(f"warning: {warning}")
    is_artifact_published(run)
    files = f"{len(manifest.files)} file{'s' * (len(manifest.files) != 1)}"
    return f"{manifest.format}, {files}, {manifest.total_bytes} bytes, {len(manifest.samples)} samples"


def _too_little_memory(run: DeploymentRun) -> list[str]:
    """Where the target is Cloud Run: a warning, if the artifact does not fit the memory that backend.toml asks for."""
    memory, has_gib = run.source.settings.memory, run.source.settings.memory_gib
    needs_gib = memory_needed_gib(run.prepared_artifact.manifest.total_bytes / 1024**3)
    if run.target.name == "local" or has_gib >= needs_gib:
        return []
    return [f'memory = "{memory}" is too little for this artifact: it needs about {needs_gib:.1f} GiB']


def try_artifact(run: DeploymentRun, tell: Tell) -> StepSummary:
    """Try the artifact: load it and score its samples. This happens before its version is published. Returns what was found."""
    if not run.trying:
        return "left out, as --no-try says"
    if is_artifact_published(run):
        return "published before, so no version can be lost"
    prepared = run.prepared_artifact
    words = _command(run, tell)
    if words is None:
        tell(f"no backend for {prepared.manifest.format} runs here, so the first start is the trial")
        return ""
    try:
        return try_unpublished_artifact(
            prepared.manifest,
            prepared.files,
            words,
            environ={**environment_for_backend(), **run.source.environment()},
            folder=run.source.path.absolute(),
        )
    except ArtifactRejected as error:
        what = error.hint or "fix it"
        raise DeployError(
            str(error),
            hint=f"{what}, and run the same command again: no version was spent. --no-try goes on all the same",
            code=error.code,
        ) from None


def _command(run: DeploymentRun, tell: Tell) -> list[str] | None:
    if run.source.has_local_command:
        return prepare_backend_command(run.source, tell)
    known = run.prepared_artifact.manifest.format in PYTHON_FORMATS and find_spec("chips_backend") is not None
    return [sys.executable, "-m", "chips_backend"] if known else None


def is_artifact_published(run: DeploymentRun) -> bool:
    """Whether this very artifact is already published under its version. Raises DeployError where the store has another one."""
    try:
        with closing(run.open_artifact_store()) as store:
            return is_published(store, run.prepared_artifact.manifest)
    except StoreError as error:
        raise _store_error(error, run) from error


def _publish(run: DeploymentRun, tell: Tell) -> str:
    """Publish the artifact; return its address."""
    prepared = run.prepared_artifact
    try:
        with closing(run.open_artifact_store()) as store:
            is_new = store.publish(prepared.manifest, dict(prepared.files), lambda _: None)
            tell(f"{prepared.manifest.total_bytes} bytes" + ("" if is_new else ", there already"))
            return store.address(run.source.model, run.source.version)
    except StoreError as error:
        raise _store_error(error, run) from error


def _store_error(error: StoreError, run: DeploymentRun) -> DeployError:
    if isinstance(error, PublishedWithOtherContent):
        again = f"chips deploy {shlex.quote(str(run.source.path))} --target {run.target.name} --version"
        return DeployError(str(error), hint=f"deploy it under another --version: {again} NEXT", code=73)
    failure = store_failure(error)
    return DeployError(failure.message, hint=failure.hint, code=failure.code)


def _verify(run: DeploymentRun, deployed: DeployedBackend, report: StepReporter, tell: Tell) -> str:
    """The short form of `chips verify`, and the folder's own samples."""
    source = run.source
    samples = source.signature_or_samples_file("samples")
    try:
        manifest = read_samples(samples) if samples is not None else ArtifactManifestSubset()
        manifest.rows_policy = source.settings.rows
        found = console.run_async(
            verify(
                deployed.url,
                model=source.model,
                version=source.version,
                manifest=manifest,
                process=None,
                fields=tuple(run.target.credentials(deployed.url).items()),
                checks=select_checks([], short=True),
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
    report.facts["verified"] = as_evidence(found)
    if found.failed:
        raise DeployError(
            f"{len(found.failed)} of {len(found.results)} checks failed; it takes no traffic and is not registered",
            hint=f"chips verify {deployed.url} tells all",
            code=EX_PROTOCOL,
        )
    return f"{found.count('passed')} checks of the contract passed"


def registration_request_of(run: DeploymentRun, url: str) -> RegistrationRequest:
    """The request to register the backend at `url` as this deployment's version."""
    settings = run.source.settings
    return RegistrationRequest(
        name=run.source.model,
        url=url,
        version=run.source.version,
        traffic=run.traffic,
        model={"owner": run.owner},
        policy={"timeout_s": settings.timeout_s if settings.timeout_s != 60.0 else None},
        backend={"concurrency": settings.concurrency, "resources": settings.resources()},
    )


def _register(run: DeploymentRun, deployed: DeployedBackend, report: StepReporter) -> str:
    headers: Mapping[str, str] = run.target.credentials(deployed.url)
    steps: dict[str, str] = report.facts["steps"]
    image = steps.get("build", "")
    request = registration_request_of(run, deployed.url)
    entered = console.run_async(
        register_backend(
            run.settings,
            request._replace(backend={**request.backend, "image": image}),
            author=run.author,
            reason=run.reason,
            headers=headers,
            verified=Verification(
                passed=True, summary=steps.get("verify", ""), facts=report.facts["verified"], image=image
            ),
        )
    )
    report.facts |= entered
    share = entered["traffic"].get(run.source.version, 0)
    return f"{run.source.model}@{run.source.version} takes {share} % of the traffic"

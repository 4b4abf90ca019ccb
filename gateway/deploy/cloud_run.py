"""Deploy backends to Cloud Run, each version as a tagged revision of its model's service.

Cloud Build builds the image, then the revision is made. It takes no traffic of its own: the gateway splits the callers'
traffic, and calls each version by its tag's address. A revision is named by the digest of everything that went into it, so
the same deploy given twice finds its own revision and makes nothing.
"""

import hashlib
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
from google.api_core import exceptions

from gateway.cost.billing_export import MODEL_LABEL, VERSION_LABEL, version_as_label
from gateway.deploy.backend_folder import BackendFolder, sha256_hex
from gateway.deploy.google_clients import GoogleClients
from gateway.deploy.google_errors import Result, call_google
from gateway.deploy.target import DeployedBackend, DeployError, DeploymentTarget, StepSummary, Tell

_TAG_AND_SERVICE_LENGTH: Final = 46  # so that `tag---service-hash-region` is a DNS label
_BUILD_WITHIN_S: Final = 1800.0
_READY_WITHIN_S: Final = 600.0
_CALL_TIMEOUT_S: Final = 30.0
_CONFLICTS: Final = 5
_FIRST_POLL_S: Final = 0.2
_LONGEST_POLL_S: Final = 5.0
_ENDED_BUILD: Final = frozenset({"FAILURE", "INTERNAL_ERROR", "TIMEOUT", "CANCELLED", "EXPIRED"})


class CloudRunLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where on Cloud Run an environment deploys to. `images` is the image repository, `account` the service account."""

    project: str
    region: str
    images: str  # REGION-docker.pkg.dev/PROJECT/REPOSITORY
    account: str = ""  # of services that are made here; one that Terraform made has its own


class CloudRunTarget(DeploymentTarget):
    """The deployment target Cloud Run.

    With `image`, nothing is built. `build_source_bucket` holds the sources that Cloud Build reads.

    Replaced revisions are kept: without requests they cost nothing, and a rollback finds them.
    """

    name = "cloud-run"

    def __init__(
        self, place: CloudRunLocation, google: GoogleClients, *, build_source_bucket: str, image: str = ""
    ) -> None:
        self._place = place
        self._google = google
        self._bucket = build_source_bucket
        self._image = image

    # -- the steps

    def require_deployable(self, folder: BackendFolder) -> StepSummary:
        place = self._place
        missing = [name for name in ("project", "region") if not getattr(place, name)]
        if not self._image and not place.images:
            missing.append("images")
        if missing:
            raise DeployError(
                f"the environment does not say: {', '.join(missing)}",
                hint="chips env show; deploy/README.md has a whole one",
                code=78,
            )
        if self._image and "@sha256:" not in self._image:
            raise DeployError("pin the image by its digest: …@sha256:<64 hex digits>", code=65)
        tag, service = traffic_tag(folder.version), service_name(folder.model)
        if len(tag) + len(service) > _TAG_AND_SERVICE_LENGTH:
            raise DeployError(
                f"Cloud Run's address for {service} with the tag {tag} would be too long; "
                f"together they may have {_TAG_AND_SERVICE_LENGTH} characters: use a shorter version or model name",
                code=65,
            )
        found = self._service(folder.model)
        if found is None and not place.account:
            raise DeployError(
                f"there is no service {service} yet, and the environment names no account to make it with",
                hint="add the model to Terraform's variable `models`, or `account` to the environment",
                code=78,
            )
        return f"{service} in {place.project}, {place.region}" + (
            "" if found is not None else ", a new service"
        )

    def build_image(self, folder: BackendFolder, tell: Tell) -> str:
        if self._image:
            tell("given, so nothing is built")
            return self._image
        source = folder.reproducible_source_archive()
        key = sha256_hex(source)[:32]
        name = f"{self._place.images}/backend-{folder.model}"
        found = self._built(folder.model, key)
        if found is not None:
            tell("these sources were built before")
            return f"{name}@{found}"
        build = self._running_build(key)
        if build is None:
            path = f"_sources/{folder.model}/{key}.tar.gz"
            self._google.upload_if_absent(self._bucket, path, source)
            build = self._create_build(f"{name}:{key}", path, key)
            tell(f"build {build.id} began; its log: {build.log_url}")
        else:
            tell(f"build {build.id} of these sources runs already; its log: {build.log_url}")
        return f"{name}@{self._wait_for_build(build.id, tell)}"

    def start_without_traffic(
        self, folder: BackendFolder, image: str, artifact: str, tell: Tell
    ) -> DeployedBackend:
        tag = traffic_tag(folder.version)
        for _ in range(_CONFLICTS):
            service = self._service(folder.model)
            template = self._template(folder, image, artifact)
            deployed = None if service is None else _serves(service, tag, template.revision)
            if deployed is not None:
                tell(f"revision {template.revision} runs already")
                return deployed._replace(is_new=False)
            try:
                service = self._put(folder, service, template, tag, tell)
            except exceptions.Conflict:  # Aborted is one: somebody deploys another version at this moment
                tell("the service was changed meanwhile; once more, on top of that")
                continue
            deployed = _serves(service, tag, template.revision)
            if deployed is None:
                raise DeployError(f"the service came back without the tag {tag}; run the same command again")
            return deployed
        raise DeployError("others change this service all the time; try again later", code=75)

    def credentials(self, url: str) -> dict[str, str]:
        token = self._google.id_token(url)
        return {"X-Serverless-Authorization": f"Bearer {token}"} if token else {}

    def stop(self, model: str, version: str) -> bool:
        service = self._service(model)
        tag = traffic_tag(version)
        kept = [] if service is None else [target for target in service.traffic if target.tag != tag]
        if service is None or len(kept) == len(service.traffic):
            return False
        if any(target.tag == tag and target.percent for target in service.traffic):
            for target in service.traffic:
                if target.tag == tag:
                    target.tag = ""
        else:
            del service.traffic[:]
            service.traffic.extend(kept)
        self._finished(lambda: self._google.services.update_service(service=service, timeout=_CALL_TIMEOUT_S))
        return True

    # -- Cloud Build

    def _built(self, model: str, key: str) -> str | None:
        """The digest of the image with the tag `key`, or None."""
        host, project, repository = self._place.images.split("/")
        location = host.removesuffix("-docker.pkg.dev")
        name = f"projects/{project}/locations/{location}/repositories/{repository}/packages/backend-{model}/tags/{key}"
        try:
            tag = self._ask(lambda: self._google.images.get_tag(name=name, timeout=_CALL_TIMEOUT_S))
        except exceptions.NotFound:
            return None
        return str(tag.version).rpartition("/")[2]

    def _running_build(self, key: str) -> Any:
        builds = self._ask(
            lambda: list(
                self._google.builds.list_builds(
                    project_id=self._place.project, filter=f'tags="chips-{key}"', timeout=_CALL_TIMEOUT_S
                )
            )
        )
        return next(
            (build for build in builds if build.status.name in {"PENDING", "QUEUED", "WORKING"}), None
        )

    def _create_build(self, image: str, path: str, key: str) -> Any:
        from google.cloud.devtools import cloudbuild_v1

        build = cloudbuild_v1.Build(
            source=cloudbuild_v1.Source(
                storage_source=cloudbuild_v1.StorageSource(bucket=self._bucket, object_=path)
            ),
            steps=[
                cloudbuild_v1.BuildStep(
                    name="gcr.io/cloud-builders/docker", args=["build", "--tag", image, "."]
                )
            ],
            images=[image],
            tags=["chips", f"chips-{key}"],
            timeout=timedelta(seconds=_BUILD_WITHIN_S),
        )
        operation = self._ask(
            lambda: self._google.builds.create_build(
                project_id=self._place.project, build=build, timeout=_CALL_TIMEOUT_S
            )
        )
        return operation.metadata.build

    def _wait_for_build(self, build_id: str, tell: Tell) -> str:
        give_up_at = time.monotonic() + _BUILD_WITHIN_S
        status, poll_s = "", _FIRST_POLL_S
        while time.monotonic() < give_up_at:
            build = self._ask(
                lambda: self._google.builds.get_build(
                    project_id=self._place.project, id=build_id, timeout=_CALL_TIMEOUT_S
                )
            )
            if build.status.name != status:
                status = build.status.name
                tell(f"build {status.lower()}")
            if status == "SUCCESS":
                return str(build.results.images[0].digest)
            if status in _ENDED_BUILD:
                raise DeployError(
                    f"the build ended with {status}: {build.status_detail or build.failure_info.detail or 'see its log'}",
                    hint=f"its log: {build.log_url}",
                    code=70,
                )
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _LONGEST_POLL_S)
        raise DeployError("the build takes too long; run the same command again to go on waiting")

    # -- Cloud Run

    def _service(self, model: str) -> Any:
        try:
            return self._ask(
                lambda: self._google.services.get_service(
                    name=f"{self._parent}/services/{service_name(model)}", timeout=_CALL_TIMEOUT_S
                )
            )
        except exceptions.NotFound:
            return None

    def _put(self, folder: BackendFolder, service: Any, template: Any, tag: str, tell: Tell) -> Any:
        from google.cloud import run_v2

        revision = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
        target = run_v2.TrafficTarget(type_=revision, revision=template.revision, tag=tag)
        if service is None:
            tell(f"making the service {service_name(folder.model)} with revision {template.revision}")
            target.percent = 100  # a service's first revision has nobody to leave the traffic to
            service = run_v2.Service(
                template=template,
                traffic=[target],
                ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_ONLY,
            )
            return self._finished(
                lambda: self._google.services.create_service(
                    parent=self._parent,
                    service=service,
                    service_id=service_name(folder.model),
                    timeout=_CALL_TIMEOUT_S,
                )
            )
        tell(f"adding revision {template.revision}")
        template.service_account = service.template.service_account
        service.template = template
        # A revision that "latest" points to would take its traffic with it to ours: name it.
        for known in service.traffic:
            if known.type_ != revision:
                known.type_, known.revision = revision, service.latest_ready_revision.rpartition("/")[2]
        kept = [known for known in service.traffic if known.tag != tag]
        # What this version's former revision took, this one takes over: somebody must.
        target.percent = sum(known.percent for known in service.traffic if known.tag == tag)
        del service.traffic[:]
        service.traffic.extend([*kept, target])
        return self._finished(
            lambda: self._google.services.update_service(service=service, timeout=_CALL_TIMEOUT_S)
        )

    def _template(self, folder: BackendFolder, image: str, artifact: str) -> Any:
        from google.cloud import run_v2

        settings = folder.settings
        environ = {
            "CHIPS_MODEL": folder.model,
            "CHIPS_VERSION": folder.version,
            "CHIPS_ARTIFACT": artifact,
            "CHIPS_CONCURRENCY": str(settings.concurrency),
            "GOOGLE_CLOUD_PROJECT": self._place.project,
        }

        def probe(path: str, period_s: int, failures: int) -> Any:
            return run_v2.Probe(
                http_get=run_v2.HTTPGetAction(path=path),
                period_seconds=period_s,
                timeout_seconds=min(period_s, 10),
                failure_threshold=failures,
            )

        template = run_v2.RevisionTemplate(
            containers=[
                run_v2.Container(
                    image=image,
                    env=[run_v2.EnvVar(name=name, value=value) for name, value in environ.items()],
                    ports=[run_v2.ContainerPort(container_port=8080)],
                    resources=run_v2.ResourceRequirements(
                        limits={"cpu": f"{settings.cpu:g}", "memory": settings.memory},
                        cpu_idle=True,
                        startup_cpu_boost=True,
                    ),
                    startup_probe=probe("/v2/health/ready", 2, 120),
                    liveness_probe=probe("/v2/health/live", 30, 4),
                )
            ],
            scaling=run_v2.RevisionScaling(
                min_instance_count=settings.min_instances, max_instance_count=settings.max_instances
            ),
            max_instance_request_concurrency=settings.concurrency,
            timeout=timedelta(seconds=max(1, round(settings.timeout_s))),
            execution_environment=run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
        )
        template.labels = {MODEL_LABEL: folder.model, VERSION_LABEL: version_as_label(folder.version)}
        content = run_v2.RevisionTemplate.to_json(template, sort_keys=True)
        template.revision = f"{service_name(folder.model)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        template.service_account = self._place.account
        return template

    def _finished(self, begin: Callable[[], Any]) -> Any:
        """Begin a long-running operation and wait for its end."""
        operation = self._ask(begin)
        try:
            return operation.result(timeout=_READY_WITHIN_S)
        except exceptions.Conflict:
            raise
        except (exceptions.GoogleAPICallError, TimeoutError) as error:
            text = getattr(error, "message", "") or str(error) or "it took too long"
            raise DeployError(
                f"the revision did not become ready: {text}",
                hint="it takes no traffic; the revision's log on Cloud Run has the reason",
                code=70,
            ) from error

    @property
    def _parent(self) -> str:
        return f"projects/{self._place.project}/locations/{self._place.region}"

    def _ask(self, call: Callable[[], Result]) -> Result:
        return call_google(call, self._place.project)


def _serves(service: Any, tag: str, revision: str) -> DeployedBackend | None:
    """Where `revision` is called by `tag`, once Cloud Run says that it is."""
    if service.terminal_condition.state.name not in {"CONDITION_SUCCEEDED", "STATE_UNSPECIFIED"}:
        return None
    for status in service.traffic_statuses:
        if status.tag == tag and status.revision == revision and status.uri:
            return DeployedBackend(str(status.uri), f"revision {revision}")
    return None


def service_name(model: str) -> str:
    """The name of a model's Cloud Run service."""
    return "model-" + model.replace("_", "-")


def traffic_tag(version: str) -> str:
    """The traffic tag of a version. It has a-z, 0-9 and -, and begins with a letter; no two versions share one."""
    plain = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    if plain == version:
        return f"v{plain}"
    return f"v{plain[:16].strip('-')}-{hashlib.sha256(version.encode()).hexdigest()[:6]}"

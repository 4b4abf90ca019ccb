"""The check of `chips doctor` that each backend serves what the registry says. It also finds those that do not answer."""

import asyncio

from gateway.cli.setup.doctor_checks import Finding
from gateway.cli.support.backend_credentials import CredentialsRefused, headers_or_id_token
from gateway.cli.support.backend_probe import ModelMetadata, NotAChipsBackend, probe
from gateway.cli.support.console import Failure
from gateway.cli.support.model_server_detection import UNKNOWN_KIND, detect_model_server, is_chips_backend
from gateway.control.openapi import takes_instances
from gateway.core.model import Backend, Model
from gateway.settings import state_folder


def _local_backend_hint(url: str) -> str:
    """The command for a backend that was deployed to this machine and does not answer; empty for any other."""
    from gateway.deploy.local_process_target import LocalProcessTarget

    for local in LocalProcessTarget(state_folder() / "local", {}).list_backends():
        spec = local.spec
        if spec is not None and spec.url == url:
            if local.status is not None:
                return f"chips logs {spec.model} --version {spec.version}"
            return "chips up" if spec.wanted else f"chips restart {spec.model} --version {spec.version}"
    return ""


async def check_registered_backend(model: Model, index: int, gate: asyncio.Semaphore) -> Finding:
    """Check that a registered backend is ready and serves its version. `index`: which of the model's backends."""
    backend = model.backends[index]
    subject = f"{model.name}@{backend.version}"
    headers: dict[str, str] = {}
    async with gate:
        try:
            headers = dict(await headers_or_id_token(backend.url, ()))
            metadata = await probe(
                backend.url, model.name, wait_s=0, progress=lambda _: None, headers=headers
            )
        except Failure as failure:
            other = await _server_of_another_kind(model, backend, headers, failure)
            if other:
                return Finding(subject, "ok", f"{other} answers at {backend.url}")
            taken = model.enabled and model.traffic.get(backend.version)
            hint = _local_backend_hint(backend.url) or failure.hint
            return Finding(subject, "wrong" if taken else "warning", failure.message, hint)
        if not takes_instances(backend) and not await is_chips_backend(backend.url, model.name, headers):
            kind = backend.platform or metadata.platform or UNKNOWN_KIND
            return Finding(subject, "ok", f"{kind} answers at {backend.url}")
    return _compared(subject, model, backend, metadata)


async def _server_of_another_kind(
    model: Model, backend: Backend, headers: dict[str, str], failure: Failure
) -> str:
    """What answers where no CHIPS backend was registered; empty where one should, or where nothing answers."""
    if takes_instances(backend):
        return ""
    if isinstance(failure, CredentialsRefused):  # it knows nobody who asks for paths of ours
        return UNKNOWN_KIND if backend.platform == UNKNOWN_KIND else ""
    if not isinstance(failure, NotAChipsBackend) or await is_chips_backend(backend.url, model.name, headers):
        return ""
    found = await detect_model_server(backend.url, model.name, headers)
    if found is not None:
        return found.kind
    return UNKNOWN_KIND if backend.platform == UNKNOWN_KIND else ""


def _compared(subject: str, model: Model, backend: Backend, metadata: ModelMetadata) -> Finding:
    """What a CHIPS backend says of itself, compared with its registration."""
    declared = metadata.integer_parameter("concurrency")
    again = f"chips register {model.name} {backend.url}"
    if declared is not None and backend.concurrency is not None and declared != backend.concurrency:
        text = f"it runs {declared} at once, registered are {backend.concurrency}"
        return Finding(subject, "warning", text, again)
    if backend.version not in metadata.versions:
        text = f"what answers there is version {', '.join(metadata.versions)}"
        return Finding(subject, "wrong", text, again)
    digest = metadata.text_parameter("artifact_digest")
    if digest and backend.artifact_digest and digest != backend.artifact_digest:
        text = "it serves another artifact than the registered one"
        return Finding(subject, "wrong", text, f"chips verify {backend.url}")
    return Finding(subject, "ok", f"ready at {backend.url}")

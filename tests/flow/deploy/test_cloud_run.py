"""`chips deploy` to Cloud Run, against stand-ins that hold every request against Google's own API description."""

import json
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.cloud import Cloud, Fault
from tests.gcs.fixture import Gcs
from tests.patience import patience
from tests.unit.cli.shell import Shell

pytestmark = pytest.mark.timeout(240)

SERVICE = "projects/my-project/locations/europe-west1/services/model-wine"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gcs: Gcs, shell: Shell) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    for service in ("RUN", "CLOUDBUILD", "ARTIFACTREGISTRY", "CLOUDRESOURCEMANAGER"):
        monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", cloud.address)
    monkeypatch.delenv("CHIPS_ARTIFACTS")
    monkeypatch.delenv("CHIPS_REGISTRY")
    environments = tmp_path / "environments.toml"
    environments.write_text(
        f'[dev]\nregistry = "sqlite://{tmp_path}/dev.db"\nartifacts = "gs://{gcs.bucket}"\nproject = "my-project"\n'
        'region = "europe-west1"\nimages = "europe-west1-docker.pkg.dev/my-project/chips"\n'
        'account = "backend@my-project.iam.gserviceaccount.com"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(environments))
    monkeypatch.setenv("CHIPS_ENV", "dev")
    # test_local tries real ones
    monkeypatch.setattr(
        "gateway.cli.deployment.deployment_run.try_unpublished_artifact", lambda *_, **__: "it loads"
    )
    yield cloud
    cloud.stop()


def deployed(shell: Shell, *options: str) -> Any:
    return shell.ok("deploy", "wine", "--json", *options).json()


def registered(shell: Shell) -> list[str]:
    models = shell.ok("models", "--json").json()
    return [backend["version"] for model in models for backend in model["backends"]]


@pytest.mark.slow
def test_two_versions_each_by_one_command(shell: Shell, backend_folder: Path, cloud: Cloud):
    first = deployed(shell)
    service = cloud.services[SERVICE]
    container = service["template"]["containers"][0]
    assert container["image"].startswith("europe-west1-docker.pkg.dev/my-project/chips/backend-wine@sha256:")
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environ["CHIPS_ARTIFACT"].endswith("/wine/1/")
    assert service["template"]["maxInstanceRequestConcurrency"] == 2
    assert service["template"]["serviceAccount"] == "backend@my-project.iam.gserviceaccount.com"
    assert service["ingress"] == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    assert [(t["tag"], t.get("percent", 0)) for t in service["traffic"]] == [("v1", 100)]
    assert shell.model()["traffic"] == {"1": 100}

    second = deployed(shell, "--version", "2.0-rc1")
    traffic = cloud.services[SERVICE]["traffic"]
    assert [t.get("percent", 0) for t in traffic] == [100, 0], (
        "a new revision takes nothing from those that run"
    )
    assert len({t["tag"] for t in traffic}) == 2
    assert second["url"] != first["url"]
    assert shell.model()["traffic"] == {"1": 100, "2.0-rc1": 0}
    assert len(cloud.builds) == 1, "the sources are the same, so the image is"

    shell.ok("undeploy", "wine", "--version", "2.0-rc1")
    assert [t["tag"] for t in cloud.services[SERVICE]["traffic"]] == ["v1"]
    assert registered(shell) == ["1"]


@pytest.mark.slow
def test_what_is_done_is_not_done_twice(shell: Shell, backend_folder: Path, cloud: Cloud):
    first = deployed(shell)
    before = len([call for call in cloud.calls if not call.startswith("GET")])
    assert deployed(shell)["url"] == first["url"]
    assert len([call for call in cloud.calls if not call.startswith("GET")]) == before
    (backend_folder / "predict.py").write_text("# new\n")
    deployed(shell)
    assert len(cloud.builds) == 2, "changed sources are another image"


def test_a_given_image_is_not_built(shell: Shell, backend_folder: Path, cloud: Cloud):
    image = "europe-west1-docker.pkg.dev/my-project/chips/backend@sha256:" + "a" * 64
    deployed(shell, "--image", image)
    assert not cloud.builds
    assert cloud.services[SERVICE]["template"]["containers"][0]["image"] == image
    ended = shell("deploy", "wine", "--image", "backend:latest")
    assert ended.code == 65
    assert "pin the image" in ended.err


FAULTS = {
    "an API that is not enabled": (
        "GET .*/services/",
        Fault(
            403,
            "Cloud Run Admin API has not been used in project my-project before: run.googleapis.com",
            "PERMISSION_DENIED",
        ),
        78,
        "gcloud services enable run.googleapis.com --project my-project",
    ),
    "no permission": (
        "GET .*/services/",
        Fault(403, "Permission 'run.services.get' denied", "PERMISSION_DENIED"),
        77,
        "is the project right?",
    ),
    "a quota": ("POST .*/builds", Fault(429, "Quota exceeded", "RESOURCE_EXHAUSTED"), 69, "quota"),
    "a refusal": ("POST .*/services", Fault(400, "bad memory", "INVALID_ARGUMENT"), 65, "bad memory"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_told_with_what_to_do(shell: Shell, backend_folder: Path, cloud: Cloud, what: str):
    key, fault, code, told = FAULTS[what]
    cloud.faults[key] = deque([fault] * 20)
    ended = shell("deploy", "wine")
    assert ended.code == code, ended
    assert told in ended.err
    assert registered(shell) == []


def test_a_build_that_fails(shell: Shell, backend_folder: Path, cloud: Cloud):
    cloud.build_outcomes = deque(["WORKING", "FAILURE"])
    ended = shell("deploy", "wine")
    assert ended.code == 70
    assert "build: the build ended with FAILURE" in ended.err
    assert "https://console.example/build-1" in ended.err
    assert not cloud.services
    assert registered(shell) == []


@pytest.mark.slow
def test_a_revision_that_never_becomes_ready(shell: Shell, backend_folder: Path, cloud: Cloud):
    deployed(shell)
    cloud.breaks = True
    ended = shell("deploy", "wine", "--version", "2")
    assert ended.code == 70
    assert "start: the revision did not become ready" in ended.err
    assert registered(shell) == ["1"]
    assert [t["tag"] for t in cloud.services[SERVICE]["traffic"]] == ["v1"]


@pytest.mark.slow
def test_two_deploys_at_once_lose_nothing(shell: Shell, backend_folder: Path, cloud: Cloud):
    deployed(shell)
    processes = [shell.start("deploy", "wine", "--version", version, "--json") for version in ("2", "3")]
    for process in processes:
        out, err = process.communicate(timeout=patience(120))
        # Both may reach the registry in the same moment: the loser is told, and its backend runs already.
        assert process.returncode in {0, 75}, (out, err)
    assert {t["tag"] for t in cloud.services[SERVICE]["traffic"]} == {"v1", "v2", "v3"}
    for version in ("2", "3"):
        deployed(shell, "--version", version)
    assert registered(shell) == ["1", "2", "3"] or registered(shell) == ["1", "3", "2"]


@pytest.mark.parametrize(
    "step", ["build", *(pytest.param(step, marks=pytest.mark.slow) for step in ("start", "register"))]
)
def test_killed_at_any_step_the_same_command_goes_on(
    shell: Shell, backend_folder: Path, cloud: Cloud, step: str
):
    process = shell.start("deploy", "wine")
    assert process.stdout is not None
    for line in process.stdout:
        if f" {step}" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    deployed(shell)
    assert len(cloud.builds) == 1, "a build that runs is waited for, not begun again"
    assert registered(shell) == ["1"]
    assert shell.model()["revision"] == 1


def test_without_an_environment_or_with_half_of_one(
    shell: Shell, backend_folder: Path, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "environments.toml"
    path.write_text(
        '[dev]\nregistry = "memory://"\nproject = "my-project"\nartifacts = "gs://my-artifacts"\n'
    )
    ended = shell("deploy", "wine")
    assert ended.code == 78
    assert "does not say: region, images" in ended.err
    path.write_text(f'[dev]\nregistry = "memory://"\nproject = "my-project"\nartifacts = "{tmp_path}/a"\n')
    assert "set artifacts to gs://bucket" in shell("deploy", "wine").err
    monkeypatch.delenv("CHIPS_ENV")
    assert "Cloud Run needs an environment" in shell("deploy", "wine", "--target", "cloud-run").err


def test_a_name_that_makes_an_address_too_long(shell: Shell, backend_folder: Path, cloud: Cloud):
    settings = backend_folder / "backend.toml"
    settings.write_text(settings.read_text().replace('"wine"', f'"{"w" * 43}"'))
    ended = shell("deploy", "wine")
    assert ended.code == 65
    assert "too long" in ended.err


def test_the_plan_is_for_machines_too(shell: Shell, backend_folder: Path, cloud: Cloud):
    plan = json.loads(shell.ok("deploy", "wine", "--dry-run", "--json").out)
    assert plan["target"] == "cloud-run"
    assert "a new service" in plan["found"]["check"]
    assert all(call.startswith("GET ") for call in cloud.calls), "nothing is changed"


@pytest.mark.slow
def test_the_doctor_compares_what_is_registered_with_what_is_deployed(
    shell: Shell, backend_folder: Path, cloud: Cloud
):
    deployed(shell)
    subject = "wine on Cloud Run"
    found = {finding["subject"]: finding for finding in shell("doctor", "--json").json()}
    assert found[subject]["outcome"] == "ok", found[subject]
    url = shell.model()["backends"][0]["url"]
    shell.ok(
        "register",
        "wine",
        url,
        "--no-probe",
        "--force",
        "--version",
        "1",
        "--timeout",
        "900",
        "--concurrency",
        "7",
    )
    told = [finding["text"] for finding in shell("doctor", "--json").json() if finding["subject"] == subject]
    assert "its time-out in the registry is 900 s, but Cloud Run cuts after 60 s" in told
    assert "Cloud Run sends 2 requests at once, registered are 7" in told
    image = shell.model()["backends"][0]["image"]
    assert not any(image in text for text in told)
    other = f"{image.partition('@')[0]}@sha256:{'0' * 64}"
    shell.ok(
        *("register", "wine", url, "--no-probe", "--force", "--version", "1", "--image", other),
        *("--timeout", "60", "--concurrency", "2"),
    )
    told = [finding["text"] for finding in shell("doctor", "--json").json() if finding["subject"] == subject]
    assert f"it runs {image}, and no version is registered with that image" in told


def test_without_credentials(
    shell: Shell, backend_folder: Path, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for service in ("RUN", "CLOUDBUILD", "ARTIFACTREGISTRY"):
        monkeypatch.delenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    ended = shell("deploy", "wine")
    assert ended.code == 77
    assert "no credentials for Google Cloud" in ended.err
    assert "gcloud auth application-default login" in ended.err
    assert registered(shell) == []

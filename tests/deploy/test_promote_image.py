"""`chips promote` where the environments have registries of images of their own: two real ones, on this machine."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.registry.base import MODELS
from tests.deploy.image_registry import Image, image_registry
from tests.unit.cli.shell import Shell
from tests.unit.cli.sign_off_stage import Stage
from tests.unit.signoff.people import People


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with image_registry(tmp_path / "qa-images") as qa, image_registry(tmp_path / "prod-images") as prod:
        yield qa, prod


@pytest.fixture
def stage(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, str]) -> Stage:
    path = tmp_path / "environments.toml"
    path.write_text(
        f'[qa]\nregistry = "sqlite://{tmp_path}/qa.db"\n'
        f'[prod]\nregistry = "sqlite://{tmp_path}/prod.db"\nimages = "{hosts[1]}/models"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(path))
    monkeypatch.delenv("CHIPS_REGISTRY")
    (tmp_path / "people").mkdir()
    return Stage(shell, tmp_path, People(tmp_path / "people"))


def test_the_approved_image_is_copied_then_deployed_then_registered(stage: Stage, hosts: tuple[str, str]):
    qa, prod = hosts
    image = Image()
    address = asyncio.run(image.push(qa, "team/wine"))
    model = stage.model(image=address)
    del model["backends"][0]["artifact_digest"]
    stage.put("qa", MODELS, "wine", model)
    words = ("promote", "wine@4", "--from", "qa", "--to", "prod", "--yes")
    assert stage.shell(*words, "--copy-only").code == 77, "nobody has approved it"
    assert asyncio.run(image.pulled(prod, "models/wine")) == set()
    stage.approve(stage.request(), "bea", "dan")

    plan = stage.shell.ok(*words, "--dry-run", "--json").json()
    assert plan["image"] == f"{prod}/models/wine@{image.digest}"
    assert asyncio.run(image.pulled(prod, "models/wine")) == set()

    ended = stage.shell.ok(*words, "--copy-only")
    assert f"deploy {prod}/models/wine@{image.digest} in prod" in ended.out
    assert asyncio.run(image.pulled(prod, "models/wine")) == image.digests
    assert stage.prod("models", "--json").json() == []

    facts = stage.shell.ok(*words, "--url", "http://prod", "--no-probe", "--force", "--json").json()
    assert (facts["image_copied"], facts["written"]) == (False, True)
    (backend,) = stage.read("prod", MODELS, "wine").body["backends"]
    assert backend["image"] == f"{prod}/models/wine@{image.digest}"
    finding = next(
        one
        for one in stage.shell("--env", "prod", "doctor", "--json").json()
        if one["subject"] == "wine@4 sign-off"
    )
    assert finding["outcome"] == "ok"


def test_an_image_that_is_gone_promotes_nothing(stage: Stage, hosts: tuple[str, str]):
    image = Image()
    model = stage.model(image=f"{hosts[0]}/team/wine@{image.digest}")
    del model["backends"][0]["artifact_digest"]
    stage.put("qa", MODELS, "wine", model)
    stage.approve(stage.request(), "bea", "dan")
    ended = stage.shell(
        *(
            "promote",
            "wine@4",
            "--from",
            "qa",
            "--to",
            "prod",
            "--yes",
            "--url",
            "http://prod",
            "--no-probe",
            "--force",
        )
    )
    assert (ended.code, f"there is no image {hosts[0]}/team/wine@{image.digest}" in ended.err) == (65, True)
    assert stage.prod("models", "--json").json() == []

"""`chips promote`: bit for bit from qa to prod, with approvals; and everything that must not slip through on the way."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts.artifact_store_interface import StoreError
from gateway.artifacts.copy_artifact import copy_artifact
from gateway.artifacts.local import LocalStore
from gateway.artifacts.manifest import MANIFEST_NAME
from gateway.artifacts.model_card_sections import SECTIONS, card_evidence
from gateway.cli.support import console
from gateway.core.model import parse_model
from gateway.core.model_updates import to_document
from gateway.registry.base import EVIDENCE, MODELS
from tests.unit.cli.shell import Ended
from tests.unit.cli.sign_off_stage import IMAGE, Stage


class Promotion:
    """wine@4 is published in qa's store and registered in qa; prod has a store of its own."""

    def __init__(self, stage: Stage, folder: Path, *, card: str = "") -> None:
        self.stage, self.folder = stage, folder
        self.digest = self.publish("4", card=card)
        (folder / "environments.toml").write_text(
            "".join(
                f'[{env}]\nregistry = "sqlite://{folder}/{env}.db"\nartifacts = "{folder}/{env}-store"\n'
                for env in ("qa", "prod")
            )
        )
        self.register()

    def publish(self, version: str, *, card: str = "") -> str:
        """Into the store of qa; the artifact's digest, which the next registration has."""
        trained = self.folder / f"trained-{version}"
        trained.mkdir()
        (trained / "model.joblib").write_bytes(b"\x80weights")
        (trained / "more.bin").write_bytes(b"more weights")
        if card:
            (trained / "card.md").write_text(card)
        published = self.stage.shell.ok(
            *("publish", str(trained), "--model", "wine", "--version", version, "--no-try"),
            *("--store", str(self.folder / "qa-store"), "--json"),
        )
        self.digest = published.json()["digest"]
        return self.digest

    def register(self, **changes: Any) -> None:
        self.stage.put("qa", MODELS, "wine", self.stage.model(artifact_digest=self.digest, **changes))

    def approve(self) -> str:
        identity = self.stage.request()
        self.stage.approve(identity, "bea", "dan")
        return identity

    def run(self, *more: str) -> Ended:
        words = (
            "promote",
            "wine@4",
            "--from",
            "qa",
            "--to",
            "prod",
            "--url",
            "http://prod",
            "--no-probe",
            "--force",
        )
        return self.stage.shell(*words, "--yes", *more)

    def ok(self, *more: str) -> Ended:
        ended = self.run(*more)
        assert ended.code == 0, ended
        return ended

    def refused(self, told: str, code: int = console.EX_NOPERM) -> None:
        """Nothing arrives in prod, neither in the registry nor in the store."""
        ended = self.run()
        assert (ended.code, told in ended.err) == (code, True), ended
        assert self.stage.prod("models", "--json").json() == []
        assert not (self.folder / "prod-store").exists()

    @property
    def published(self) -> Path:
        return self.folder / "qa-store/wine/4"


@pytest.fixture
def promotion(stage: Stage, tmp_path: Path) -> Promotion:
    return Promotion(stage, tmp_path)


def test_prod_gets_bit_for_bit_what_qa_saw(promotion: Promotion):
    promotion.refused("nobody has asked for an approval")
    identity = promotion.approve()
    plan = promotion.ok("--dry-run")
    assert (
        f"wine@4 from qa to prod, approved by bea@example.com, dan@example.com (request {identity})"
        in plan.out
    )
    assert "version 4: url: http://prod" in plan.out
    assert not (promotion.folder / "prod-store").exists()
    ended = promotion.ok("--by", "ana@example.com", "--reason", "release 7")
    assert "copied, and checked" in ended.out
    arrived = promotion.folder / "prod-store/wine/4"
    assert {path.name: path.read_bytes() for path in arrived.iterdir()} == {
        path.name: path.read_bytes() for path in promotion.published.iterdir()
    }
    model = promotion.stage.read("prod", MODELS, "wine").body
    (backend,) = model["backends"]
    assert backend["artifact_digest"] == promotion.digest
    assert backend["image"] == IMAGE
    assert (backend["url"], backend["artifact"]) == ("http://prod", str(arrived))
    history = promotion.stage.prod("history", "wine").out
    assert (
        f"release 7; promoted from qa, approved by bea@example.com, dan@example.com (request {identity})"
        in history
    )
    assert "was there already" in promotion.ok().out
    assert promotion.ok("--json").json()["written"] is True


def test_a_moved_tag_does_not_slip_through(promotion: Promotion):
    promotion.register(image="eu.pkg.dev/p/wine:stable")
    words = ("request-approval", "wine@4", "--from", "qa", "--to", "prod")
    ended = promotion.stage.shell(*words, "--ssh-key", promotion.stage.people.key("ana"))
    assert "named by a tag, which can move" in ended.err
    promotion.register()
    promotion.approve()
    promotion.register(image="eu.pkg.dev/p/wine:stable")
    promotion.refused("named by a tag, which can move", console.EX_DATAERR)
    promotion.register(image="eu.pkg.dev/p/wine@sha256:" + "c" * 64)
    promotion.refused("the image has changed since it was asked for")


def test_an_object_that_was_uploaded_again_does_not_slip_through(promotion: Promotion):
    promotion.approve()
    file = promotion.published / "model.joblib"
    file.chmod(0o644)
    file.write_bytes(b"\x80WEIGHTS")  # as long as before
    promotion.refused("model.joblib of wine 4 is not what was published", console.EX_DATAERR)
    file.unlink()
    promotion.refused("model.joblib is missing", console.EX_DATAERR)


def test_an_edited_manifest_does_not_slip_through(promotion: Promotion):
    promotion.approve()
    manifest = promotion.published / MANIFEST_NAME
    content = json.loads(manifest.read_text())
    content["created_by"] = "mallory"
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(content))
    promotion.refused("has been changed: it is sha256:", console.EX_DATAERR)
    manifest.unlink()
    promotion.refused("there is no artifact at", console.EX_DATAERR)


def test_a_newer_policy_does_not_slip_through(promotion: Promotion):
    promotion.approve()
    model = promotion.stage.read("qa", MODELS, "wine").body
    promotion.stage.put("qa", MODELS, "wine", {**model, "policy": {"access": "public"}})
    promotion.refused("the model's policy has changed since it was asked for")
    promotion.stage.put("qa", MODELS, "wine", model)
    (promotion.folder / "other.toml").write_text(promotion.stage.people.policy(approvals="approver = 1"))
    identity = promotion.stage.request("--policy", str(promotion.folder / "other.toml"))
    promotion.stage.approve(identity, "bea", "dan")
    promotion.stage.prod("sign-off", "set", str(promotion.folder / "other.toml"))
    promotion.refused("the sign-off policy has changed since it was asked for")
    promotion.approve()
    promotion.ok()


def test_a_changed_contract_or_another_artifact_under_the_same_name_does_not_slip_through(
    promotion: Promotion,
):
    promotion.approve()
    promotion.register(predict_path="/other")
    promotion.refused("the contract (path, inputs, outputs, concurrency) has changed")
    promotion.register()
    there = promotion.folder / "prod-store/wine/4"
    there.mkdir(parents=True)
    (there / MANIFEST_NAME).write_text("{}")
    ended = promotion.run()
    assert ended.code == console.EX_DATAERR
    assert "has been changed: it is sha256:" in ended.err
    assert promotion.stage.prod("models", "--json").json() == []


def test_an_artifact_without_a_store_or_a_backend_without_an_address(promotion: Promotion):
    promotion.approve()
    words = ("promote", "wine@4", "--from", "qa", "--to", "prod")
    assert "say where its backend runs there" in promotion.stage.shell(*words).err
    assert "add --yes" in promotion.stage.shell(*words, "--url", "http://prod", "--no-probe", "--force").err
    (promotion.folder / "environments.toml").write_text(
        "".join(f'[{env}]\nregistry = "sqlite://{promotion.folder}/{env}.db"\n' for env in ("qa", "prod"))
    )
    promotion.refused("names no artifact store", console.EX_USAGE)


def test_without_a_policy_it_still_carries_digests(promotion: Promotion):
    words = ("promote", "wine@4", "--from", "qa", "--url", "http://dev", "--no-probe", "--force", "--yes")
    target = ("--to", f"sqlite://{promotion.folder}/dev.db")
    ended = promotion.stage.shell(*words, *target)
    assert "names no artifact store" in ended.err
    promotion.register(image="wine:latest")
    assert "named by a tag" in promotion.stage.shell(*words, *target).err


def test_a_copy_between_stores_is_checked_at_its_end(promotion: Promotion, tmp_path: Path):
    class Forgetful(LocalStore):
        def manifest_content(self, model: str, version: str) -> bytes | None:
            content = super().manifest_content(model, version)
            return None if content is None else content + b" "

    source = LocalStore(tmp_path / "qa-store")
    with pytest.raises(StoreError, match="has been changed: it is sha256:"):
        copy_artifact(source, Forgetful(tmp_path / "x"), "wine", "4", promotion.digest, lambda _: None)
    target = LocalStore(tmp_path / "y")
    assert copy_artifact(source, target, "wine", "4", promotion.digest, lambda _: None)
    assert not copy_artifact(source, target, "wine", "4", promotion.digest, lambda _: None)


def test_an_artifact_of_another_model_is_not_copied(promotion: Promotion):
    """It would be written where its manifest says: under a name that nobody has approved."""
    manifest = promotion.published / MANIFEST_NAME
    manifest.chmod(0o644)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "model": "beer"}))
    promotion.digest = "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest()
    promotion.register()
    promotion.approve()
    promotion.refused("is of beer 4", console.EX_DATAERR)


def test_an_artifact_that_is_there_already_is_read_to_its_end(promotion: Promotion):
    promotion.approve()
    promotion.ok()
    arrived = promotion.folder / "prod-store/wine/4/model.joblib"
    arrived.chmod(0o644)
    arrived.write_bytes(b"\x80WEIGHTS")  # as long as before; the manifest is the one that was approved
    ended = promotion.run()
    assert ended.code == console.EX_DATAERR
    assert "model.joblib of wine 4 is not what was published" in ended.err


CARD = "".join(f"## {name}\n\nWritten <b>{name}</b>.\n\n" for name in SECTIONS)


@pytest.fixture
def carded(stage: Stage, tmp_path: Path) -> Promotion:
    """A version with a model card, and a policy in prod that asks for one."""
    (tmp_path / "asks.toml").write_text(stage.people.policy(evidence='"card"'))
    asked = stage.request("--policy", "asks.toml")
    stage.approve(asked, "bea", "dan")
    stage.prod("sign-off", "set", "asks.toml")
    return Promotion(stage, tmp_path, card=CARD)


def test_a_policy_may_ask_for_a_model_card_which_approvers_read(carded: Promotion):
    identity = carded.approve()
    shown = carded.stage.prod("approvals", identity).out
    assert "evidence card: owner Written <b>Owner</b>." in shown
    assert "## Limits\n" in shown
    assert "Written <b>Limits</b>.\n" in shown
    carded.ok()
    assert "card      owner Written <b>Owner</b>." in carded.stage.prod("show", "wine").out
    (card,) = carded.stage.prod("show", "wine", "--json").json()["cards"]
    assert (card["version"], card["passed"], card["why_not"]) == ("4", True, "")
    assert card["sections"][3] == {"heading": "Limits", "text": "Written <b>Limits</b>."}
    assert "## Metrics\n" in carded.stage.prod("evidence", "wine@4").out


def test_a_draft_or_no_card_cannot_be_approved(stage: Stage, carded: Promotion):
    carded.publish("5", card=CARD.replace("Written <b>Limits</b>.", "TODO: write it"))
    carded.register(version="5")
    ended = stage.shell(
        "request-approval", "wine@5", "--from", "qa", "--to", "prod", "--ssh-key", stage.people.key("ana")
    )
    assert "the evidence card says that it failed: card.md: Limits still to be written" in ended.err
    carded.publish("6", card="")
    carded.register(version="6")
    ended = stage.shell(
        "request-approval", "wine@6", "--from", "qa", "--to", "prod", "--ssh-key", stage.people.key("ana")
    )
    assert "the evidence card is missing for wine@6" in ended.err


def test_a_card_that_was_edited_after_it_was_published_counts_nowhere(stage: Stage, carded: Promotion):
    path = carded.published / "card.md"
    path.write_text(path.read_text().replace("Limits</b>.", "Limits</b>, none."))
    words = (
        "request-approval",
        "wine@4",
        "--from",
        "qa",
        "--to",
        "prod",
        "--ssh-key",
        stage.people.key("ana"),
    )
    ended = stage.shell(*words)
    assert ended.code == console.EX_DATAERR
    assert "has been changed since it was published" in ended.err
    assert "the evidence card is missing" in ended.err


def test_a_card_is_taken_from_the_artifact_and_not_from_what_the_registry_says_of_it(
    stage: Stage, carded: Promotion
):
    identity = carded.approve()
    backend = parse_model(stage.read("qa", MODELS, "wine").body).backends[0]
    forged = card_evidence("wine", backend, CARD.replace("Limits</b>.", "Limits</b>, none.").encode())
    stage.put("qa", EVIDENCE, forged.name, to_document(forged))
    carded.ok()
    shown = stage.prod("approvals", identity).out
    assert "Limits</b>, none." not in shown

# Long: one year of a registry, told in order.
"""A year in the life of three models on a laptop: dev, qa and prod as three SQLite registries and folders."""

import asyncio
import json
import random
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.cli.support import console
from gateway.core.model import parse_model
from gateway.core.version_evidence import VERIFY, EvidenceRecord
from gateway.cost.usage_documents import InstanceSize, utc_day
from gateway.cost.usage_reporter import UsageReporter
from gateway.registry import base
from gateway.registry.evidence_records import evidence_change
from gateway.registry.sqlite import SqliteRegistry
from gateway.telemetry.metrics import RequestMetrics
from gateway.thread_and_task_supervisor import Supervisor
from gateway.usage_from_metrics import usage_from_metrics
from tests.damage import one_bit_off
from tests.unit.audit.test_anchors import write_key
from tests.unit.cli.shell import Ended, Shell
from tests.unit.rollout.fleet import Clock, ReportingGateway, tally
from tests.unit.rollout.fleet import Scene as RolloutScene
from tests.unit.signoff.people import People
from tests.unit.telemetry.exchanges import make_exchange

ENVIRONMENTS = ("dev", "qa", "prod")
MODELS = {"wine": "joblib", "iris": "rds", "cars": "jld2"}  # trained in Python, R and Julia
FIRST_BYTES = {
    "joblib": b"\x80",
    "rds": b"\x1f\x8b\x08",
    "jld2": b"\x89HDF\r\n\x1a\n",
}


class Year:
    def __init__(self, shell: Shell, folder: Path, people: People) -> None:
        self.shell, self.folder, self.people = shell, folder, people

    def chips(self, env: str, *words: str) -> Ended:
        return self.shell.ok("--env", env, "--yes", *words)

    def publish(self, name: str, version: str, content: bytes) -> str:
        suffix = MODELS[name]
        trained = self.folder / "trained" / name / version
        trained.mkdir(parents=True)
        (trained / f"model.{suffix}").write_bytes(FIRST_BYTES[suffix] + content)
        words = ("publish", str(trained), "--model", name, "--version", version, "--no-try", "--json")
        digest: str = self.shell.ok(*words, "--store", str(self.folder / "dev-store")).json()["digest"]
        return digest

    def register(self, name: str, version: str, digest: str) -> None:
        """In dev, as a backend that says which artifact it serves would be."""
        exported = self.folder / "dev.yaml"
        self.chips(
            "dev",
            "register",
            name,
            f"http://dev/{name}-{version}",
            "--no-probe",
            "--force",
            "--version",
            version,
        )
        self.chips("dev", "export", str(exported))
        address = f"http://dev/{name}-{version}"
        text = exported.read_text().replace(
            f"url: {address}\n", f"url: {address}\n      artifact_digest: {digest}\n"
        )
        exported.write_text(text)
        self.chips("dev", "import", str(exported), "--yes", "--force")

    def release(self, name: str, version: str, content: bytes) -> None:
        """Train, try in dev, promote to qa."""
        self.register(name, version, self.publish(name, version, content))
        self.promote(f"{name}@{version}", "dev", "qa")

    def promote(self, version: str, source: str, to: str) -> Ended:
        url = f"http://{to}/{version.replace('@', '-')}"
        words = (
            "promote",
            version,
            "--from",
            source,
            "--to",
            to,
            "--url",
            url,
            "--no-probe",
            "--force",
            "--yes",
        )
        return self.shell("--yes", *words)

    def request(self, version: str) -> str:
        words = ("request-approval", version, "--from", "qa", "--to", "prod", "--json")
        identity: str = self.shell.ok(*words, "--ssh-key", self.people.key("ana")).json()["id"]
        return identity

    def sign(self, identity: str, who: str, *more: str) -> None:
        self.chips("prod", "approve", identity, "--ssh-key", self.people.key(who), *more)

    def to_prod(self, version: str) -> None:
        identity = self.request(version)
        for who in ("bea", "dan"):
            self.sign(identity, who)
        ended = self.promote(version, "qa", "prod")
        assert ended.code == 0, ended

    def files(self, env: str) -> dict[str, bytes]:
        store = self.folder / f"{env}-store"
        return {
            str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()
        }


@pytest.fixture
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Of this test alone: one of them gets another key."""
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture
def year(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: People) -> Year:
    (tmp_path / "environments.toml").write_text(
        "".join(
            f'[{env}]\nregistry = "sqlite://{tmp_path}/{env}.db"\nartifacts = "{tmp_path}/{env}-store"\n'
            for env in ENVIRONMENTS
        )
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(tmp_path / "environments.toml"))
    monkeypatch.delenv("CHIPS_REGISTRY")
    monkeypatch.setenv("CHIPS_AUDIT__SECOND_PLACE", str(tmp_path / "kept"))
    monkeypatch.setenv("CHIPS_AUDIT__SIGNING_KEY", str(write_key(tmp_path / "head.pem")))
    (tmp_path / "sign-off.toml").write_text(people.policy())
    year = Year(shell, tmp_path, people)
    year.chips("prod", "sign-off", "set", str(tmp_path / "sign-off.toml"))
    return year


def backup(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


@pytest.mark.timeout(180)
def test_a_year_in_the_life(year: Year, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spring(year)
    a_canary_that_fails(year)
    a_damaged_file(year, tmp_path)
    with monkeypatch.context() as then:
        an_approval_that_was_given_too_long_ago(year, then)
    an_emergency(year)
    a_leaked_key(year)
    used = asyncio.run(serve(tmp_path / "prod.db"))
    a_restored_backup(year, tmp_path)
    what_it_cost(year, used)
    evidence_that_expires(year, monkeypatch)
    a_rewritten_history(year, tmp_path)


def spring(year: Year) -> None:
    """Three models go dev, qa, prod; prod runs bit for bit what qa saw."""
    for name in MODELS:
        year.release(name, "1", b"first")
        assert year.promote(f"{name}@1", "qa", "prod").code == console.EX_NOPERM, "nobody has approved it"
        year.to_prod(f"{name}@1")
    assert year.files("prod") == year.files("qa") == year.files("dev")
    assert "qa and prod are alike: 3 models" in year.shell.ok("diff", "qa", "prod").out


def a_canary_that_fails(year: Year) -> None:
    """A bad version gets a share by a rollout, and goes back by the controller's own verdict, without anybody's signature."""
    year.release("wine", "2", b"second")
    year.to_prod("wine@2")
    year.chips("prod", "canary", "wine", "2", "--force", "--steps", "10,100", "--every", "1m")
    assert asyncio.run(traffic_after_the_verdict(year.folder / "prod.db")) == {"1": 100, "2": 0}
    (record,) = year.chips("prod", "evidence", "wine@2", "--json").json()
    assert (record["sort"], record["passed"]) == ("canary", False)
    assert year.chips("prod", "audit", "--verify").code == 0


async def traffic_after_the_verdict(path: Path) -> dict[str, int]:
    """A gateway reports 30 % errors of the canary to the controller, until that acts."""
    clock, registry = Clock(), SqliteRegistry(path)
    scene = RolloutScene(clock, registry)
    gateway = ReportingGateway(registry, rollout=(await scene.rollout()).id)
    controller = scene.controller()
    await scene.turn(controller)
    while (rollout := await scene.rollout()).active:
        assert len(gateway.windows) < 20, "it acts within some windows"
        await gateway.report(
            rollout.position, candidate=tally(100, 30), stable=tally(900), versions=("2", "1")
        )
        await scene.turn(controller, seconds=15.0)
    assert rollout.state == "returned"
    model = await registry.read(base.MODELS, "wine")
    await registry.close()
    assert model is not None
    return dict(parse_model(model.body).traffic)


def a_damaged_file(year: Year, tmp_path: Path) -> None:
    """Somebody puts another file into qa's store after the approval: it does not arrive."""
    year.release("wine", "3", b"third")
    identity = year.request("wine@3")
    for who in ("bea", "dan"):
        year.sign(identity, who)
    damaged = tmp_path / "qa-store/wine/3/model.joblib"
    good = damaged.read_bytes()
    damaged.write_bytes(one_bit_off(good))
    ended = year.promote("wine@3", "qa", "prod")
    assert ended.code == console.EX_DATAERR
    assert "is not what was published" in ended.err
    damaged.write_bytes(good)


def an_approval_that_was_given_too_long_ago(year: Year, then: pytest.MonkeyPatch) -> None:
    year.release("iris", "2", b"second")
    identity = year.request("iris@2")
    for who, days in (("bea", 15), ("dan", 13)):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        then.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda at=at: at)
        words = ("approve", identity, "--ssh-key", year.people.key(who))
        assert (year.shell("--env", "prod", "--yes", *words).code == 0) is (who == "dan")
    then.undo()
    assert "approver is missing" in year.promote("iris@2", "qa", "prod").err
    year.sign(identity, "bea")
    assert year.promote("iris@2", "qa", "prod").code == 0


def an_emergency(year: Year) -> None:
    """By night, and reviewed in the morning."""
    year.release("cars", "2", b"second")
    identity = year.request("cars@2")
    year.sign(identity, "cy", "--emergency", "--reason", "version 1 answers nonsense")
    assert "EMERGENCY" in year.promote("cars@2", "qa", "prod").err
    due = year.chips("prod", "approvals", identity, "--json").json()[0]["review_due"]
    assert due
    shown = year.shell("--env", "prod", "doctor").out
    assert f"emergency {identity}: cars@2 serves on the word of cy@example.com" in shown
    year.sign(identity, "bea", "--review", "--reason", "seen")
    assert not year.chips("prod", "approvals", identity, "--json").json()[0]["review_due"]


def a_leaked_key(year: Year) -> None:
    """An application's key is in a repository, and so is an approver's: both are replaced, and the old ones open nothing."""
    year.chips("prod", "keys", "create", "app")
    (app,) = year.chips("prod", "keys", "list", "--json").json()
    words = ("keys", "rotate", app["id"], "--overlap", "0", "--reason", "it was in a repository")
    assert year.chips("prod", *words).out.strip()
    states = {one["id"]: one["state"] for one in year.chips("prod", "keys", "list", "--json").json()}
    assert (states.pop(app["id"]), list(states.values())) == ("revoked", ["valid"])

    old, leaked = year.people.public("bea"), year.folder / "leaked"
    for suffix in ("", ".pub"):
        shutil.move(f"{year.people.key('bea')}{suffix}", f"{leaked}{suffix}")
    year.people.make_key("bea")
    policy = year.folder / "sign-off.toml"
    policy.write_text(policy.read_text().replace(old, year.people.public("bea")))
    asked = ("request-approval", "--policy", str(policy), "--to", "prod", "--json")
    identity = year.shell.ok(*asked, "--ssh-key", year.people.key("ana")).json()["id"]
    for who in ("dan", "cy"):
        year.sign(identity, who)
    year.chips("prod", "sign-off", "set", str(policy), "--reason", "bea's key has leaked")

    year.release("iris", "3", b"third")
    identity = year.request("iris@3")
    ended = year.shell("--env", "prod", "--yes", "approve", identity, "--ssh-key", str(leaked))
    assert "the sign-off policy does not know the key" in ended.err
    for who in ("bea", "dan"):
        year.sign(identity, who)
    assert year.promote("iris@3", "qa", "prod").code == 0
    assert year.chips("prod", "audit", "--verify").code == 0


@dataclass
class Used:
    """What callers did and backends took, counted where it happens."""

    month: str
    requests: Counter[str] = field(default_factory=Counter)  # by model
    seconds: dict[str, float] = field(default_factory=dict)


async def serve(path: Path) -> Used:
    """Three gateways count requests of two callers. Each is restarted in between; one is killed before its last write."""
    at = time.time()
    used, draw = Used(f"{utc_day(at):%Y-%m}"), random.Random(22)
    registry = SqliteRegistry(path)
    for number in range(6):
        metrics = RequestMetrics()
        reporter = UsageReporter(
            registry,
            partial(usage_from_metrics, metrics),
            lambda _model, _version: InstanceSize(),
            interval_s=15,
            supervisor=Supervisor(),
            now=lambda: at,
        )
        for _ in range(200):
            model, caller = draw.choice(sorted(MODELS)), draw.choice(["app", "batch"])
            took_s = draw.uniform(0.01, 2.0)
            metrics.observe(make_exchange(model=model, caller=caller, took_s=took_s + 0.002), 200)
            used.requests[model] += 1
            used.seconds[model] = used.seconds.get(model, 0.0) + took_s
        if number == 3:
            await reporter.write()
            metrics.observe(make_exchange(model="wine", took_s=1.0), 200)  # it is killed here
            used.requests["wine"] += 1
            used.seconds["wine"] += 1.0
        else:
            await reporter.stop()
    await registry.close()
    return used


def what_it_cost(year: Year, used: Used) -> None:
    """The report has the requests that were made (within 1 %) and the time that they took (within 2 %), and it adds up."""
    report = year.chips("prod", "cost", "--month", used.month, "--json").json()
    lines = {line["name"]: line for line in report["lines"]}
    assert set(lines) == set(MODELS)
    for model, line in lines.items():
        assert line["requests"] == pytest.approx(used.requests[model], rel=0.01)
        assert line["allocated_s"] == pytest.approx(used.seconds[model], rel=0.02)
    total = report["total"]
    assert total["requests"] == pytest.approx(used.requests.total(), rel=0.01)
    for by in ("version", "caller", "team", "day"):
        found = year.chips("prod", "cost", "--month", used.month, "--by", by, "--json").json()
        assert found["total"] == total
        assert sum(line["micros"]["total"] for line in found["lines"]) == total["micros"]["total"]
    assert year.chips("prod", "audit", "--verify").code == 0, "usage is outside of the history"


def a_restored_backup(year: Year, tmp_path: Path) -> None:
    """The disk breaks. A backup is restored, the check says what is lost, and the restore is noted."""
    backup(tmp_path / "prod.db", tmp_path / "backup.db")
    year.chips("prod", "traffic", "iris", "1=50", "2=50", "--force")
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"prod.db{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "prod.db")
    ended = year.shell("--env", "prod", "audit", "--verify")
    assert (ended.code, "the history ends with entry" in ended.out) == (1, True)
    year.chips("prod", "audit", "--restored", "--reason", "the disk broke", "--by", "ana")
    assert "the disk broke" in year.chips("prod", "audit", "--verify").out


def evidence_that_expires(year: Year, monkeypatch: pytest.MonkeyPatch) -> None:
    """qa asks for a verification that is not older than a week, too."""
    policy = year.people.policy(evidence='"verify"', approvals="approver = 1")
    (year.folder / "qa.toml").write_text(f"evidence_days = 7\n{policy}")
    year.chips("qa", "sign-off", "set", str(year.folder / "qa.toml"))
    digest = year.publish("wine", "9", b"ninth")
    year.register("wine", "9", digest)
    record = EvidenceRecord(
        model="wine",
        version="9",
        sort=VERIFY,
        passed=True,
        summary="28 checks passed",
        backend="http://dev/wine-9/predict",
        artifact_digest=digest,
    )
    words = ("request-approval", "wine@9", "--from", "dev", "--to", "qa", "--ssh-key", year.people.key("ana"))
    with monkeypatch.context() as then:
        at = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="milliseconds")
        then.setattr("gateway.registry.sqlite_write.now_rfc3339", lambda: at)
        asyncio.run(write_evidence(year.folder / "dev.db", record))
    assert "the evidence verify has expired" in year.shell(*words).err
    asyncio.run(write_evidence(year.folder / "dev.db", record))
    identity = year.shell.ok(*words, "--json").json()["id"]
    year.chips("qa", "approve", identity, "--ssh-key", year.people.key("bea"))
    assert year.promote("wine@9", "dev", "qa").code == 0


async def write_evidence(path: Path, record: EvidenceRecord) -> None:
    registry = SqliteRegistry(path)
    await registry.write(await evidence_change(registry, record), author="verify")
    await registry.close()


def a_rewritten_history(year: Year, tmp_path: Path) -> None:
    """Somebody with the database's rights rewrites who approved what. It is found."""
    with closing(sqlite3.connect(tmp_path / "prod.db")) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("UPDATE history SET author = 'nobody' WHERE kind = 'approvals'")
    ended = year.shell("--env", "prod", "audit", "--verify", "--json")
    found = json.loads(ended.out)["findings"]
    assert (ended.code, {one["what"] for one in found}) == (1, {"edited"})
    for env in ("dev", "qa"):
        assert year.shell("--env", env, "audit", "--verify").code == 0

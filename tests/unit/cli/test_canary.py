"""`chips canary` and `chips rollouts`: what is written, what is refused, and what is shown."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.control.registry_changes import recent_changes
from gateway.core.model import parse_model
from gateway.core.model_updates import merge_document, to_document
from gateway.core.rollout_document import mask_webhook, parse_rollout, with_traffic
from gateway.registry.base import ROLLOUTS, Put
from gateway.registry.open_by_url import open_registry
from gateway.rollout.assessment import ASSESSMENTS, Assessment
from gateway.rollout.decision import AWAITS_CONFIRMATION, Decision, apply_decision
from gateway.rollout.request_count_reporter import RolloutReport, RolloutWindow
from tests.unit.cli.shell import Shell
from tests.unit.rollout.fleet import tally


def _two_versions(shell: Shell) -> None:
    shell.register("wine", "3")
    shell.register("wine", "4")
    shell.verified("wine", "4")


def _rollout(shell: Shell) -> dict[str, Any]:
    return dict(shell.ok("canary", "wine", "--status", "--json").json())


def _act(shell: Shell, decision: Decision) -> None:
    """Do what a controller would."""

    async def act() -> None:
        registry = open_registry(shell.registry)
        document = await registry.read(ROLLOUTS, "wine")
        model = await registry.read("models", "wine")
        assert document is not None
        assert model is not None
        new = apply_decision(parse_rollout(document.body), decision, {})
        await registry.write(
            Put(kind=ROLLOUTS, name="wine", body=to_document(new), expected=document.revision),
            Put(
                kind="models",
                name="wine",
                body=merge_document(model.body, with_traffic(parse_model(model.body), new.traffic)),
                expected=model.revision,
            ),
            author="rollout controller",
            reason=decision.reason,
        )
        await registry.close()

    asyncio.run(act())


def test_a_rollout_is_begun_with_its_plan_and_moves_no_traffic_itself(shell: Shell):
    _two_versions(shell)
    plan = (
        "--steps",
        "5%, 50,100",
        "--every",
        "90s",
        "--min-requests",
        "9",
        "--max-errors",
        "+0.1%",
        "--slower",
        "15%",
    )
    more = (
        "--confirm",
        "--go-on-after",
        "2h",
        "--webhook",
        "https://example.com/hook",
        "--reason",
        "a better scaler",
    )
    ended = shell.ok("canary", "wine", "4", *plan, *more)
    assert "version 4 takes 0 %, step 0 of 3" in ended.out
    assert "no controller" in ended.err
    found = _rollout(shell)
    assert found["plan"] == {
        "steps": [5, 50, 100],
        "every_s": 90.0,
        "min_requests": 9,
        "max_errors": pytest.approx(0.001),
        "slower": 0.15,
        "confirm": True,
        "undecided_after_s": 7200.0,
        "window_s": 15.0,
        "settle_s": 30.0,
        "webhook": "https://example.com/…",
    }
    assert (found["state"], found["candidate"], found["stable"], found["by"]) == ("running", "4", "3", "ana")
    assert shell.model()["traffic"] == {"3": 100, "4": 0}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("5",), 65, "no version 5"),
        (("3",), 65, "one stable version"),
        (("4", "--steps", "100"), 65, "compares nothing"),
        (("4", "--min-gateways", "0"), 65, "must be 1 to 10000, not 0"),
        (("4", "--steps", "5,x"), 64, "whole percentages"),
        (("4", "--steps", "50,5"), 65, "grow"),
        (("4", "--every", "10"), 64, "not a duration"),
        (("4", "--max-errors", "0.005"), 64, "not a percentage"),
        (("4", "--slower", "-1%"), 64, "not a percentage"),
        (("4", "--min-requests", "0"), 65, "must be 1 to 1000000000, not 0"),
        (("4", "--min-requests", "1000000001"), 65, "not 1000000001"),
        (("4", "--steps", "50", "--confirm"), 65, "give two steps"),
        (("4", "--go-on-after", "1m"), 65, "cannot go on undecided"),
        (("4", "--webhook", "http://example.com"), 65, "https://"),
        (("4", "--status"), 64, "either a version, or one of"),
        (("--hold", "--abort"), 64, "either a version, or one of"),
        (("--hold",), 65, "no rollout of wine"),
        (("--every", "5m"), 64, "--every: a plan is given together with the new version"),
        (("--resume", "--confirm", "--steps", "5,50"), 64, "--steps, --confirm: a plan is given"),
        (("--status",), 65, "no rollout of wine"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_nothing_is_written(
    shell: Shell, arguments: tuple[str, ...], code: int, told: str
):
    _two_versions(shell)
    ended = shell("canary", "wine", *arguments)
    assert ended.code == code, ended
    assert told in ended.err
    assert shell.ok("rollouts", "list", "--json").json() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (None, "it was never verified"),
        ({"passed": False, "summary": "2 checks failed"}, "it failed its verification: 2 checks failed"),
        ({"artifact_digest": "sha256:1"}, "about another artifact"),
        ({"backend": "http://127.0.0.1:9/other"}, "about http://127.0.0.1:9/other"),
    ],
)
def test_a_version_that_is_not_verified_gets_traffic_only_by_force_and_the_history_says_so(
    shell: Shell, changes: dict[str, Any] | None, told: str
):
    shell.register("wine", "3")
    shell.register("wine", "4")
    if changes is not None:
        shell.verified("wine", "4", **changes)
    ended = shell("canary", "wine", "4")
    assert ended.code == 65
    assert told in ended.err
    assert "--force" in ended.err
    shell.ok("canary", "wine", "4", "--force")
    assert told in shell.ok("history", "wine", "--kind", "rollouts").out
    shell.ok("canary", "wine", "--abort")
    by_hand = shell("traffic", "wine", "3=90", "4=10")
    assert by_hand.code == 65
    assert told in by_hand.err
    shell.ok("traffic", "wine", "3=90", "4=10", "--force")
    history = shell.ok("history", "wine").out
    assert "forced: version 4: " in history
    assert told in history


def test_the_evidence_of_a_version_is_shown_with_what_it_is_about(shell: Shell):
    _two_versions(shell)
    assert "nothing is known of wine@3" in shell.ok("evidence", "wine@3").out
    assert "passed: 28 checks passed" in shell.ok("evidence", "wine@4").out
    (found,) = shell.ok("evidence", "wine@4", "--json").json()
    assert (found["sort"], found["passed"], found["counts"], found["by"]) == ("verify", True, True, "ana")
    shell.ok("register", "wine", "http://127.0.0.1:9/other", "--no-probe", "--force", "--version", "4")
    assert (
        "does not count: it is about http://127.0.0.1:9/wine-4/predict" in shell.ok("evidence", "wine@4").out
    )
    assert "not NAME@VERSION" in shell("evidence", "wine").err
    assert "no version 9" in shell("evidence", "wine@9").err


def test_one_rollout_at_a_time(shell: Shell):
    _two_versions(shell)
    shell.ok("canary", "wine", "4")
    ended = shell("canary", "wine", "4")
    assert ended.code == 65
    assert "--abort ends it" in ended.err
    shell.ok("canary", "wine", "--abort")
    shell.ok("canary", "wine", "4")
    assert _rollout(shell)["steps"] == []


def test_hold_resume_and_abort(shell: Shell):
    _two_versions(shell)
    shell.ok("canary", "wine", "4")
    _act(shell, Decision("advance", "the rollout begins", 2))
    assert "lunch" in shell.ok("canary", "wine", "--hold", "--reason", "lunch").out
    assert _rollout(shell)["state"] == "held"
    shell.ok("canary", "wine", "--resume")
    assert _rollout(shell)["state"] == "running"
    assert shell("canary", "wine", "--resume").code == 65
    assert shell.model()["traffic"] == {"3": 75, "4": 25}
    shell.ok("canary", "wine", "--abort", "--reason", "not today")
    assert shell.model()["traffic"] == {"3": 100, "4": 0}
    found = _rollout(shell)
    assert (found["state"], [step["state"] for step in found["steps"]]) == (
        "aborted",
        ["running", "held", "running", "aborted"],
    )
    assert "not today" in shell.ok("history", "wine").out
    assert shell("canary", "wine", "--hold").code == 65
    assert shell("canary", "wine", "--abort").code == 65


def test_a_confirmation_is_a_resume(shell: Shell):
    _two_versions(shell)
    shell.ok("canary", "wine", "4", "--confirm")
    _act(shell, Decision("hold", AWAITS_CONFIRMATION.format(model="wine")))
    assert "chips canary wine --resume" in shell.ok("canary", "wine").out
    shell.ok("canary", "wine", "--resume")

    async def confirmed() -> bool:
        registry = open_registry(shell.registry)
        document = await registry.read(ROLLOUTS, "wine")
        await registry.close()
        assert document is not None
        return parse_rollout(document.body).confirmed

    assert asyncio.run(confirmed())


def test_a_model_that_was_changed_by_hand_keeps_its_split_at_an_abort_and_gets_the_steps_at_a_resume(
    shell: Shell,
):
    _two_versions(shell)
    shell.ok("canary", "wine", "4")
    _act(shell, Decision("advance", "the rollout begins", 1))
    by_hand = shell.ok("traffic", "wine", "3=40", "4=60")
    assert "a rollout of version 4 is running, and a change by hand holds it" in by_hand.err
    assert "changed by hand" in shell.ok("canary", "wine").out
    shell.ok("canary", "wine", "--hold")
    shell.ok("canary", "wine", "--resume")
    assert shell.model()["traffic"] == {"3": 95, "4": 5}
    shell.ok("traffic", "wine", "3=40", "4=60")
    aborted = shell.ok("canary", "wine", "--abort", "--reason", "the night is over")
    assert shell.model()["traffic"] == {"3": 40, "4": 60}
    assert "the night is over; the traffic was changed by hand: version 3 40 %, version 4 60 %" in aborted.out
    assert "that stays as it is" in aborted.out


def test_what_shares_stick_to_is_written_together_with_the_rollout(shell: Shell):
    _two_versions(shell)
    ended = shell.ok("canary", "wine", "4", "--sticky", "header:X-User")
    assert "header:x-user" in ended.out
    model = shell.model()
    assert model["sticky"]["by"] == "header:x-user"
    assert model["traffic"] == {"3": 100, "4": 0}
    newest, *_ = shell.ok("history", "wine", "--json").json()
    generations = [
        shell.ok("history", "wine", "--kind", kind, "--json").json()[0]["generation"]
        for kind in ("models", "rollouts")
    ]
    assert generations == [newest["generation"]] * 2
    _act(shell, Decision("advance", "the rollout begins", 1))
    assert int(shell.model()["sticky"]["slots"]["4"], 16).bit_count() == 5
    assert _rollout(shell)["state"] == "running", "that is no change by hand"
    shell.ok("canary", "wine", "--abort")
    shell.ok("canary", "wine", "4", "--sticky", "off")
    assert "sticky" not in shell.model()


def test_stickiness_that_cannot_be_is_refused_and_belongs_to_the_begin(shell: Shell):
    _two_versions(shell)
    assert "nothing that a share can stick to" in shell("canary", "wine", "4", "--sticky", "mood").err
    assert shell.ok("rollouts", "list", "--json").json() == []
    shell.ok("canary", "wine", "4", "--min-gateways", "3")
    assert _rollout(shell)["plan"]["min_gateways"] == 3
    assert shell("canary", "wine", "--hold", "--sticky", "caller").code == 64


def test_a_candidate_that_was_replaced_cannot_be_resumed(shell: Shell):
    _two_versions(shell)
    shell.ok("canary", "wine", "4")
    shell.ok("canary", "wine", "--hold")
    shell.ok("register", "wine", "http://127.0.0.1:9/other", "--no-probe", "--force", "--version", "4")
    ended = shell("canary", "wine", "--resume")
    assert ended.code == 65
    assert "version 4 was replaced" in ended.err


def test_the_status_shows_the_evidence(shell: Shell):
    _two_versions(shell)
    shell.ok("canary", "wine", "4")
    _act(shell, Decision("advance", "the rollout begins", 0))

    async def report() -> None:
        registry = open_registry(shell.registry)
        document = await registry.read(ROLLOUTS, "wine")
        assert document is not None
        rollout = parse_rollout(document.body)
        seen = Assessment.begin(rollout)
        window = RolloutWindow(
            number=1, position=0, after_s=60.0, versions={"4": tally(50, 3), "3": tally(900)}
        )
        seen.add_new_windows(rollout, RolloutReport(rollout=rollout.id, gateway="g1", windows=(window,)))
        seen.reporting, seen.silent, seen.left_out = 3, 2, 1
        await registry.write_ephemeral(ASSESSMENTS, "wine", to_document(seen), expected=0)
        await registry.close()

    asyncio.run(report())
    ended = shell.ok("canary", "wine")
    assert "3 of 50 (6.00%) against 0 of 900" in ended.out
    assert "3 processes report; 2 are late; 1 were waited for in vain" in ended.out
    assert _rollout(shell)["evidence"]["errors"]["candidate"] == [50, 3]


def test_a_rollout_that_cannot_be_read_is_told_and_another_one_can_begin(shell: Shell):
    _two_versions(shell)

    async def damage() -> None:
        registry = open_registry(shell.registry)
        await registry.write(Put(kind=ROLLOUTS, name="wine", body={"future": 1}, expected=0), author="ana")
        await registry.close()

    asyncio.run(damage())
    assert "cannot be read" in shell("canary", "wine").err
    assert "cannot be read" in shell("canary", "wine", "--abort").err
    assert "unreadable" in shell.ok("rollouts", "list").out
    shell.ok("canary", "wine", "4")
    assert "running, version 4 at 0 %" in shell.ok("rollouts", "list").out


def test_a_webhook_is_shown_by_its_host_and_posted_to_as_it_was_given(shell: Shell, tmp_path: Path):
    """Its path is often what lets anybody post there."""
    _two_versions(shell)
    url = "https://hooks.example.com:8443/T0/tokentoken?key=tokentoken"
    page = tmp_path / "history.html"
    begun = ("canary", "wine", "4", "--webhook", url)
    shown = [
        shell.ok(*command)
        for command in (
            (*begun, "--json"),
            ("canary", "wine"),
            ("canary", "wine", "--json"),
            ("canary", "wine", "--abort", "--json"),
            begun,
            ("history", "--kind", "rollouts"),
            ("history", "--kind", "rollouts", "--json"),
            ("audit", "--export", str(page)),
        )
    ]

    async def read() -> tuple[Any, Any]:
        registry = open_registry(shell.registry)
        changes = await recent_changes(registry)
        document = await registry.read(ROLLOUTS, "wine")
        await registry.close()
        assert document is not None
        return changes, document.body["plan"]["webhook"]

    changes, kept = asyncio.run(read())
    texts = [page.read_text(), str(changes), *(ended.out + ended.err for ended in shown)]
    assert not [text for text in texts if "tokentoken" in text]
    assert sum("https://hooks.example.com:8443/…" in text for text in texts) >= 6
    assert kept == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com/…"),
        ("https://example.com?key=a", "https://example.com/…"),
        ("http://[::1]:80/a", "http://[::1]:80/…"),
        ("https://ana:secret@example.com/a", "https://example.com/…"),
        ("https://[::1/a", "…"),
    ],
)
def test_of_a_webhook_nothing_but_scheme_and_host_is_shown(url: str, shown: str):
    assert mask_webhook(url) == shown

"""The rollout on a model's page: how far it is, why, what both versions did, and what can be done about it."""

from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import RolloutPlan, new_rollout
from gateway.registry.base import ROLLOUTS, Put
from gateway.rollout.assessment import ASSESSMENTS, Assessment
from gateway.rollout.decision import hold
from gateway.rollout.request_count_reporter import RolloutReport, RolloutWindow
from tests.console.conftest import Watched
from tests.console.stage import Stage
from tests.unit.rollout.fleet import tally

_MODEL = Model(
    name="forecast",
    backends=(Backend(version="3", url="http://127.0.0.1:1"), Backend(version="4", url="http://127.0.0.1:2")),
    traffic={"3": 100, "4": 0},
)


async def test_a_rollout_is_shown_with_its_evidence_and_its_commands(stage: Stage, watched: Watched):
    await stage.put(_MODEL, "two versions")
    begun = new_rollout(_MODEL, "4", RolloutPlan(), identity="r1", by="ana", reason="a better scaler")
    rollout = hold(begun, "<b>lunch</b>")
    seen = Assessment.begin(rollout)
    window = RolloutWindow(number=1, position=-1, after_s=60.0, versions={"4": tally(50, 3), "3": tally(900)})
    seen.add_new_windows(rollout, RolloutReport(rollout="r1", gateway="g1", windows=(window,)))
    await stage.registry.write_ephemeral(ASSESSMENTS, "forecast", to_document(seen), expected=0)
    await stage.registry.write(
        Put(kind=ROLLOUTS, name="forecast", body=to_document(rollout), expected=0),
        author="ana",
        reason="lunch",
    )
    await watched.sign_in(stage.operator)
    await watched.go("model/forecast", "#rollout")
    text = await watched.page.inner_text("#rollout")
    for expected in (
        "Rollout of version 4",
        "held",
        "<b>lunch</b>",
        "takes 0 %: step 0 of 5",
        "3 of 50 (6.0 %) against 0 of 900",
        "chips canary forecast --resume",
        "chips canary forecast --abort",
    ):
        assert expected in text
    assert await watched.violations() == []
    await watched.go("changes", ".change")
    assert "Created rollout of forecast “lunch”" in await watched.page.inner_text("main")

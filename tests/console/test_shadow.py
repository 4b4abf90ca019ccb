"""The shadow on a model's page: its verdict, what that rests on, and where the versions differ most."""

import time

import msgspec

from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import backend_fingerprint
from gateway.core.shadow_document import Shadow, utc_text
from gateway.registry.base import SHADOWS, Put
from gateway.shadow.compare_answers import Difference
from gateway.shadow.difference_counts import (
    DifferenceExample,
    Findings,
    OutputFigures,
    PairFigures,
    ShadowReport,
    VersionFigures,
)
from gateway.shadow.run_shadows import FIGURES
from tests.console.conftest import Watched
from tests.console.stage import Stage
from tests.patience import patience

_MODEL = Model(
    name="forecast",
    policy=Policy(pure=True),
    backends=(Backend(version="3", url="http://127.0.0.1:1"), Backend(version="4", url="http://127.0.0.1:2")),
    traffic={"3": 100, "4": 0},
)
_SHADOW = Shadow(
    model="forecast",
    id="s1",
    candidate="4",
    stable="3",
    versions={backend.version: backend_fingerprint(backend) for backend in _MODEL.backends},
    percent=5.0,
    until="2100-01-01T00:00:00Z",
    report_s=300.0,  # so that the stage's own gateway adds none to the one that is shown
)
_REPORT = ShadowReport(
    shadow="s1",
    gateway="g1",
    sampled=1010,
    dropped={"busy": 10},
    findings=Findings(
        candidate=VersionFigures(requests=1000, failed=2, latency={500: 1000}),
        stable=VersionFigures(requests=1000, latency={480: 1000}),
        pairs=PairFigures(
            compared=998,
            agreed=700,
            outputs={
                "price": OutputFigures(
                    compared=998, agreed=700, numbers=998, sum_difference=49.9, largest=12.5
                )
            },
        ),
        noise=PairFigures(
            compared=200, agreed=200, outputs={"price": OutputFigures(compared=200, agreed=200, numbers=200)}
        ),
        worst=[
            DifferenceExample("req-1", [Difference("predictions[0].<b>label</b>", "other text")]),
            DifferenceExample("req-2", [Difference("predictions[0].price", "number", 12.5)], 12.5),
        ],
    ),
)


async def _put(stage: Stage, shadow: Shadow, revision: int) -> None:
    change = Put(kind=SHADOWS, name="forecast", body=to_document(shadow), expected=revision)
    generation = await stage.registry.write(change, author="ana", reason="a look")
    assert await stage.gateway.mirror.wait_for_generation(generation, timeout_s=patience(30))


async def test_a_shadow_is_shown_with_its_verdict_and_what_differs(stage: Stage, watched: Watched):
    await stage.put(_MODEL, "two versions")
    await _put(stage, _SHADOW, 0)
    await stage.registry.write_ephemeral(FIGURES, "forecast.g1", to_document(_REPORT), expected=0)
    await stage.registry.write_ephemeral(FIGURES, "forecast.g0", {"shadow": 7}, expected=0)
    await watched.sign_in(stage.operator)
    await watched.go("model/forecast", "#shadow")
    text = await watched.page.inner_text("#shadow")
    for expected in (
        "Version 4 in the shadow of version 3",
        "differs",
        "5 % of the requests to version 3 also go to version 4, until ",
        "(reported by 1 gateway process)",
        "of the answers differ, and of the stable version's own at most",
        "70.14 %",
        "version 3 with itself: 100 %",
        "70.14 % agree, mean difference 0.05, largest 12.5",
        "2 of 1\u202f000 requests failed",
        "left out: 10 busy",
        "predictions[0].<b>label</b> other text",
        "predictions[0].price by 12.5",
        "chips shadow forecast --stop",
    ):
        assert expected in text
    assert await watched.violations() == []
    stopped = msgspec.structs.replace(_SHADOW, stopped=utc_text(time.time()))
    await _put(stage, stopped, 1)
    await watched.page.wait_for_selector("#shadow >> text=It has ended: it was stopped at")
    assert "chips shadow forecast --stop" not in await watched.page.inner_text("#shadow")


async def test_before_anything_was_compared_it_is_undecided(stage: Stage, watched: Watched):
    await stage.put(_MODEL, "two versions")
    await _put(stage, _SHADOW, 0)
    await watched.sign_in(stage.operator)
    await watched.go("model/forecast", "#shadow")
    text = await watched.page.inner_text("#shadow")
    assert "undecided" in text
    assert "too few to tell" in text
    assert await watched.violations() == []

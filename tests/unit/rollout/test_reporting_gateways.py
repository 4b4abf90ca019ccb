"""Which gateways a step waits for, for how long, and what it says about those that it does not wait for."""

import os
import subprocess
import sys

import msgspec
import pytest

from gateway.registry.base import ROLLOUTS
from gateway.rollout.process_liveness import current_process, has_ended
from gateway.rollout.request_count_reporter import FIGURES
from tests.unit.rollout.fleet import PLAN, Clock, ReportingGateway, Scene, tally

pytestmark = pytest.mark.skipif(not current_process(), reason="the system does not say when a process began")


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


@pytest.fixture
def ended() -> str:
    """The name of a process that ran on this machine."""
    code = "from gateway.rollout.process_liveness import current_process; print(current_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_a_gateway_that_is_silent_is_left_out_after_three_windows_and_a_request(scene: Scene):
    """Three windows of 15 s, one more, and the model's time-out of 60 s; the history says that it was left out."""
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await ReportingGateway(scene.registry, "g2").report(0, candidate=tally(1), stable=tally(9))
    await scene.serve(controller, windows=8)
    assert (await scene.traffic())["4"] == 5
    await scene.serve(controller, windows=2)
    assert (await scene.traffic())["4"] == 25
    step = (await scene.rollout()).steps[-1]
    assert "without 1 gateways that went silent" in step.reason
    assert step.evidence["gateways_left_out"] == 1
    assert [one.name for one in await scene.registry.list_ephemeral(FIGURES)] == ["wine.g1"]


async def test_one_that_was_left_out_and_reports_again_is_counted_once(scene: Scene):
    await scene.begin(msgspec.structs.replace(PLAN, every_s=10_000.0))
    controller = scene.controller()
    await scene.turn(controller)
    other = ReportingGateway(scene.registry, "g2")
    await other.report(0, candidate=tally(3), stable=tally(9))
    await scene.serve(controller, windows=10)
    before = controller._watched["wine"].assessment.requests
    other.revision = 0  # as its conflict says
    await other.report(0, candidate=tally(5), stable=tally(9))
    await scene.turn(controller)
    assert controller._watched["wine"].assessment.requests == before + 5
    assert controller._watched["wine"].assessment.reporting == 2


async def test_a_gateway_whose_process_has_ended_is_not_waited_for(scene: Scene, ended: str):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    killed = ReportingGateway(scene.registry, "g2", process=ended)
    await killed.report(0, candidate=tally(1), stable=tally(9))
    await scene.serve(controller, windows=6)
    assert (await scene.traffic())["4"] == 25
    assert (await scene.rollout()).steps[-1].evidence["gateways_left_out"] == 0, "nothing is missing"


async def test_a_controller_that_takes_over_waits_for_the_next_report_of_each_gateway(scene: Scene):
    """What lies in the store may have been written by gateways that are gone."""
    await scene.begin(msgspec.structs.replace(PLAN, every_s=200.0))
    first = scene.controller()
    await scene.turn(first)
    await scene.serve(first, windows=3)
    await scene.gateway.report(0, candidate=tally(400), stable=tally(900))
    await scene.turn(first)
    second = scene.controller()
    await scene.turn(second, seconds=0.0)
    await scene.turn(second, seconds=11.0)
    watched = second._watched["wine"].assessment
    watched.waited_s = 300.0
    await scene.turn(second, seconds=1.0)
    assert (await scene.traffic())["4"] == 5
    assert (watched.reporting, watched.silent) == (0, 1)
    await scene.gateway.report(0, candidate=tally(1), stable=tally(9))
    await scene.turn(second, seconds=1.0)
    assert (await scene.traffic())["4"] == 25


async def test_a_step_waits_for_as_many_gateways_as_the_plan_says(scene: Scene):
    await scene.begin(msgspec.structs.replace(PLAN, min_gateways=2))
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=10)
    assert (await scene.traffic())["4"] == 5
    await ReportingGateway(scene.registry, "g2").report(0, candidate=tally(1), stable=tally(9))
    await scene.serve(controller, windows=1)
    assert (await scene.traffic())["4"] == 25


async def test_nothing_advances_where_no_gateway_reports(scene: Scene):
    """Also where the plan goes on undecided: the time alone says nothing."""
    await scene.begin(msgspec.structs.replace(PLAN, undecided_after_s=60.0))
    controller = scene.controller()
    await scene.turn(controller)
    for _ in range(50):
        await scene.turn(controller, seconds=61.0)
    assert (await scene.traffic())["4"] == 5


async def test_time_in_which_a_rollout_is_held_is_no_time_at_a_step(scene: Scene):
    await scene.begin(msgspec.structs.replace(PLAN, undecided_after_s=3600.0, every_s=60.0))
    controller = scene.controller()
    await scene.turn(controller)
    held = msgspec.structs.replace(await scene.rollout(), state="held")
    document = await scene.registry.read(ROLLOUTS, "wine")
    assert document is not None
    await scene.write(held, document.revision)
    await scene.turn(controller)
    for _ in range(3):
        await scene.gateway.report(0, candidate=tally(0), stable=tally(9))
        await scene.turn(controller, seconds=86_400.0)
    await scene.write(msgspec.structs.replace(held, state="running"), document.revision + 1)
    await scene.gateway.report(0, candidate=tally(0), stable=tally(9))
    await scene.turn(controller, seconds=5.0)
    await scene.turn(controller, seconds=5.0)
    assert (await scene.traffic())["4"] == 5


def test_a_process_has_ended_only_where_that_is_certain(ended: str):
    own = current_process()
    machine, pid, started = own.rsplit("/", 2)
    assert pid == str(os.getpid())
    assert not has_ended(own)
    assert has_ended(ended)
    assert has_ended(f"{machine}/{pid}/{int(started) + 1}"), "another one has its number now"
    for unknown in ("", "/", "//", f"elsewhere/{pid}/1", f"{machine}/x/1", f"{machine}", "1/2"):
        assert not has_ended(unknown)


def test_a_child_that_nobody_has_asked_after_has_ended():
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    machine, _, _ = current_process().rsplit("/", 2)
    from pathlib import Path

    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    name = f"{machine}/{child.pid}/{started}"
    assert not has_ended(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(name)
    child.communicate()

"""Every kind predicts as its library does, or is refused with a reason and a place."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chips_backend.testing import write_artifact
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model import Backend, Model
from tests.flow.scene import Scene
from tests.zoo.python.questions import (
    Served,
    outcomes_of_odd_rows,
    wrong_answers,
    wrong_beside_others,
    wrong_missing,
    wrong_probabilities,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.path("fast")]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RESULTS = HERE.parent / "results" / "python.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[Path]:
    """All kinds, trained in a process that knows nothing of CHIPS."""
    done = subprocess.run(
        [sys.executable, "-I", str(HERE / "training/main.py"), str(folder / "trained")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted((folder / "trained").iterdir())


def publish(kind: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    facts = json.loads((kind / "facts.json").read_text())
    files = {path.name: path.read_bytes() for path in kind.iterdir() if path.name != "facts.json"}
    samples = [{"request": {"instances": facts["rows"][:3]}, "tolerance": facts["tolerance"]}]
    names = [tensor["name"] for tensor in facts["signature"]["outputs"]]
    wanted = [
        dict(zip(names, row, strict=True)) if len(names) > 1 and isinstance(row, list) else row
        for row in facts["together"][:3]
    ]
    samples[0]["response"] = {"predictions": wanted}
    artifact = write_artifact(
        folder / kind.name, files, format=facts["format"], model="zoo", signature=facts["signature"],
        samples=samples if facts["samples"] else [],
    )  # fmt: skip
    return str(artifact), facts


@pytest.fixture(scope="module")
def zoo(trained: list[Path], folder: Path) -> Iterator[list[Served]]:
    """All of them served by one process."""
    published = dict(publish(kind, folder / "artifacts") for kind in trained)
    with (
        (folder / "errors").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.zoo.python.host", *published],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE / "training")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as host,
    ):
        assert host.stdout is not None
        lines = [json.loads(line) for _ in published if (line := host.stdout.readline())]
        refused = [f"{line['artifact']}: {line['error']}" for line in lines if "error" in line]
        served = [
            Served(published[line["artifact"]], line["port"], line["batching"])
            for line in lines
            if "port" in line and "batching" in line
        ]
        try:
            assert not refused, "\n".join(refused)
            assert len(served) == len(published), (folder / "errors").read_text()[-3000:]
            yield served
        finally:
            host.terminate()


def told(served: Served, problems: Iterator[str]) -> list[str]:
    return [f"{served.facts['family']}, {served.facts['kind']}: {problem}" for problem in problems]


def test_there_are_enough_kinds(zoo: list[Served]):
    assert len(zoo) >= 90
    assert len({served.facts["format"] for served in zoo}) == 6


def test_each_predicts_as_its_library_does(zoo: list[Served]):
    wrong = [problem for served in zoo for problem in told(served, wrong_answers(served))]
    assert not wrong, "\n".join(wrong)


def test_rows_of_other_callers_change_nothing(zoo: list[Served]):
    wrong = [problem for served in zoo for problem in told(served, wrong_beside_others(served))]
    assert not wrong, "\n".join(wrong)


def test_probabilities_are_the_librarys_with_their_labels(zoo: list[Served]):
    wrong = [problem for served in zoo for problem in told(served, wrong_probabilities(served))]
    assert not wrong, "\n".join(wrong)


def test_strange_values_are_predicted_as_by_the_library_or_refused_with_their_place(zoo: list[Served]):
    wrong = [
        problem
        for served in zoo
        for problem in told(served, (wrong for _, _, wrong in outcomes_of_odd_rows(served) if wrong))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_missing_field_is_named(zoo: list[Served]):
    wrong = [problem for served in zoo for problem in told(served, wrong_missing(served))]
    assert not wrong, "\n".join(wrong)


def test_any_rows_in_any_order_and_number(zoo: list[Served]):
    """hypothesis draws which rows of which kind are asked for together."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(zoo), st.lists(st.integers(0, 8), min_size=1, max_size=12), st.booleans())
    def ask(served: Served, chosen: list[int], batching: bool):
        answer = served.ask(
            [served.facts["rows"][at] for at in chosen], served.batching if batching else served.port
        )
        wanted = [served.wanted(served.facts["alone"][at]) for at in chosen]
        assert answer.status_code == 200, answer.text
        assert served.same(answer.json()["predictions"], wanted), served.facts["kind"]

    ask()


async def test_through_the_gateway_it_is_the_same(zoo: list[Served]):
    async with Scene() as scene:
        wrong = []
        for number, served in enumerate(zoo):
            name = f"kind-{number}"
            url = f"http://127.0.0.1:{served.port}"
            await scene.put_model(
                Model(name=name, backends=(Backend(version="1", url=url),), traffic={"1": 100})
            )
            body = json.dumps({"instances": served.facts["rows"]}).encode()
            answer = await scene.call(
                "POST", f"/{name}", body=body, fields=(("Content-Type", "application/json"),)
            )
            wanted = [served.wanted(value) for value in served.facts["together"]]
            if answer.status != 200 or not served.same(answer.json()["predictions"], wanted):
                wrong.append(f"{served.facts['kind']}: {answer.body[:300]!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif("CHIPS_ZOO_RESULTS" not in os.environ, reason="`make zoo` writes the results")
def test_what_it_came_to_is_written_down(zoo: list[Served]):
    from importlib import metadata

    packages = (
        "scikit-learn",
        "pandas",
        "xgboost-cpu",
        "lightgbm",
        "onnxruntime",
        "skops",
        "statsmodels",
        "torch",
    )
    versions = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package in packages:
        try:
            versions[package] = ".".join(metadata.version(package).split(".")[:2])
        except metadata.PackageNotFoundError:
            continue
    kinds = sorted((result_of(served) for served in zoo), key=lambda kind: (kind["family"], kind["kind"]))
    RESULTS.write_text(
        json.dumps(
            {"language": "Python", "made_with": versions, "kinds": kinds}, indent=1, ensure_ascii=False
        )
        + "\n"
    )


def result_of(served: Served) -> dict[str, str]:
    became: dict[str, set[str]] = {"null": set(), "unseen": set(), "out_of_range": set()}
    for what, outcome, _ in outcomes_of_odd_rows(served):
        became[what].add(outcome)
    facts = served.facts
    return {
        "family": facts["family"],
        "kind": facts["kind"],
        "format": facts["format"],
        "outcome": "predicts",
        **{what: "/".join(sorted(outcomes)) for what, outcomes in became.items()},
        "probabilities": "yes" if facts["probabilities"] is not None else "",
        "note": facts["note"],
    }

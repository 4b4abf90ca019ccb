"""`chips shadow`: refused where it could do harm, priced before it begins, reported with a verdict and without values."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts.manifest import build_manifest
from gateway.core.model_updates import to_document
from gateway.cost.registry_price_tables import read_default_prices
from gateway.registry.base import PRICES, SHADOWS, Put, Unavailable
from gateway.registry.open_by_url import open_registry
from gateway.registry.sqlite import SqliteRegistry
from gateway.shadow.compare_answers import AnswerComparison, Difference, OutputComparison
from gateway.shadow.difference_counts import (
    DifferenceExample,
    Findings,
    OutputFigures,
    PairFigures,
    ShadowReport,
    VersionFigures,
)
from gateway.shadow.run_shadows import FIGURES
from tests.unit.cli.shell import Shell


@pytest.fixture(autouse=True)
def no_gateway_reports_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.models.shadow._LAST_REPORT_S", 0.0)


def two_versions(shell: Shell, *options: str) -> None:
    shell.register("wine", "3", "--pure", *options)
    shell.register("wine", "4")


def begin(shell: Shell, *options: str) -> Any:
    return shell.ok("shadow", "wine", "4", "--yes", "--json", *options).json()


async def _report(url: str, report: ShadowReport) -> None:
    registry = open_registry(url)
    try:
        name = f"wine.{report.gateway}"
        await registry.write_ephemeral(FIGURES, name, to_document(report), expected=0)
    finally:
        await registry.close()


def report(shell: Shell, shadow: str, gateway: str, **fields: Any) -> None:
    """As a gateway does."""
    asyncio.run(_report(shell.registry, ShadowReport(shadow=shadow, gateway=gateway, **fields)))


def test_it_is_written_with_its_bounds_and_its_price(shell: Shell):
    two_versions(shell)
    begun = begin(
        shell,
        "--percent",
        "2.5",
        "--for",
        "2h",
        "--tolerance",
        "1e-3",
        "--tolerance",
        "price=0.5",
        "--max-concurrency",
        "2",
    )
    assert (begun["candidate"], begun["stable"], begun["percent"]) == ("4", "3", 2.5)
    assert begun["tolerance"] == 1e-3
    assert begun["tolerances"] == {"price": 0.5}
    assert begun["budget"]["concurrency"] == 2
    assert begun["price"]["requests"] == 1_000_000
    assert begun["price"]["total"] > 0


def test_the_price_is_that_of_the_registered_sizes_and_of_the_prices_in_force(shell: Shell):
    shell.register("wine", "3", "--pure", "--cpu", "1", "--memory", "1Gi")
    shell.register("wine", "4", "--cpu", "4", "--memory", "8Gi")
    table: dict[str, Any] = to_document(read_default_prices())
    day = datetime.now(UTC).date().isoformat()
    table |= {"date": day}
    run = table["cloud_run"]
    run["cpu_active"] *= 3

    async def write() -> None:
        registry = open_registry(shell.registry)
        await registry.write(Put(kind=PRICES, name=day, body=table, expected=0), author="x")
        await registry.close()

    asyncio.run(write())
    price = begin(shell, "--rps", "10", "--percent", "10", "--for", "1h", "--noise", "50", "--latency", "2s")[
        "price"
    ]
    assert (price["requests"], price["predictions"]) == (3600, 5400)
    one, four = (
        2 * (cpu * run["cpu_active"] + memory * run["memory_gib_active"]) + run["per_million_requests"] / 1e6
        for cpu, memory in ((1, 1), (4, 8))
    )
    assert price["total"] == pytest.approx(3600 * four + 1800 * one, abs=2e-6)


def test_the_price_is_said_before_the_question_and_nothing_is_written_without_a_yes(shell: Shell):
    two_versions(shell)
    for option in ((), ("--json",)):
        ended = shell.run("shadow", "wine", "4", "--rps", "100", "--for", "24h", *option)
        assert ended.code == 64
        assert "432,000 requests in 24 hours" in ended.err
        assert "--yes" in ended.err + ended.out
    assert shell("shadow", "wine", "--status").code == 65
    told = shell.ok("shadow", "wine", "4", "--rps", "100", "--yes").out
    assert "price" in told
    assert "432,000 requests" in told


def test_only_what_is_declared_pure_is_shadowed(shell: Shell):
    shell.register("wine", "3")
    shell.register("wine", "4")
    ended = shell("shadow", "wine", "4", "--yes")
    assert ended.code == 65
    assert "not declared pure" in ended.err
    assert "pure = true" in ended.err
    shell.register("wine", "4", "--pure")
    begin(shell)


@pytest.mark.parametrize(("both", "code"), [(True, 0), (False, 65)])
def test_a_manifest_may_declare_it(shell: Shell, tmp_path: Path, both: bool, code: int):
    for version in ("3", "4"):
        folder = tmp_path / f"artifact-{version}"
        folder.mkdir()
        (folder / "model.json").write_text("{}")
        manifest = build_manifest(
            [("model.json", folder / "model.json")],
            model="wine",
            version=version,
            format="json",
            created_by="ana",
            pure=both or version == "3",
        )
        (folder / "manifest.json").write_bytes(manifest.encode())
        shell.register("wine", version, "--artifact", str(folder))
    assert shell("shadow", "wine", "4", "--yes").code == code
    if both:
        assert "running" in shell.ok("shadow", "wine", "--status", "--json").out
        shell.register("wine", "4", "--not-pure")
        ended = shell.ok("shadow", "wine", "--status", "--json").json()
        assert (ended["running"], ended["ended"]) == (False, "its model is not declared pure any more")
        assert "is declared not pure" in shell("shadow", "wine", "4", "--yes").err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 64, "--status"),
        (("5", "--yes"), 65, "no version 5"),
        (("4", "--percent", "0", "--yes"), 65, "share of requests"),
        (("4", "--percent", "101", "--yes"), 65, "share of requests"),
        (("4", "--noise", "0", "--yes"), 65, "stable version again"),
        (("4", "--for", "90d", "--yes"), 64, "no time"),
        (("4", "--for", "soon", "--yes"), 64, "no time"),
        (("4", "--tolerance", "x", "--yes"), 64, "no tolerance"),
        (("4", "--tolerance", "nan", "--yes"), 65, "a tolerance"),
        (("4", "--max-concurrency", "0", "--yes"), 65, "requests at once"),
        (("4", "--latency", "fast", "--yes"), 64, "no duration"),
        (("4", "--rps", "inf", "--yes"), 64, "less than or equal"),
        (("4", "--status"), 64, "take no version"),
        (("3", "--yes"), 65, "nothing to compare with"),
        (("--status",), 65, "no shadow"),
    ],
)
def test_what_cannot_be_honored_is_refused(shell: Shell, arguments: tuple[str, ...], code: int, told: str):
    two_versions(shell)
    ended = shell("shadow", "wine", *arguments)
    assert ended.code == code, ended
    assert told.replace("no duration", "not a duration") in ended.err


def test_a_second_one_waits_for_the_first_to_end(shell: Shell):
    two_versions(shell)
    first = begin(shell)
    ended = shell("shadow", "wine", "4", "--yes")
    assert ended.code == 65
    assert "--stop" in ended.err
    report(shell, first["id"], "old")
    shell.ok("shadow", "wine", "--stop")
    second = begin(shell)
    assert second["id"] != first["id"]
    assert shell.ok("shadow", "wine", "--status", "--json").json()["sampled"] == 0, "old figures are gone"


def findings(differ: int, compared: int) -> Findings:
    output = OutputFigures(compared, compared - differ, compared, differ * 0.5, 2.0)
    return Findings(
        candidate=VersionFigures(compared + 1, 1, {600: compared + 1}),
        stable=VersionFigures(compared + 1, 0, {500: compared + 1}),
        pairs=PairFigures(compared, compared - differ, {"price": output}),
        noise=PairFigures(
            compared // 5, compared // 5, {"price": OutputFigures(compared // 5, compared // 5)}
        ),
        worst=[
            DifferenceExample(
                "order-66", [Difference("price[0]", "number", 2.0), Difference("name[0]", "label")]
            )
        ],
    )


def test_the_reports_of_all_gateways_make_one_verdict(shell: Shell):
    two_versions(shell)
    begun = begin(shell)
    for gateway in ("a", "b"):
        report(shell, begun["id"], gateway, sampled=1010, dropped={"busy": 10}, findings=findings(300, 1000))
    report(shell, "an earlier one", "c", sampled=7)
    found = shell.ok("shadow", "wine", "--status", "--json").json()
    assert (found["running"], found["gateways"]) == (True, 2)
    assert (found["finding"], found["compared"], found["sampled"]) == ("differs", 2000, 2020)
    assert found["agreement"]["seen"] == 0.7
    assert found["outputs"]["price"]["candidate"]["largest_difference"] == 2.0
    assert found["outputs"]["price"]["candidate"]["mean_difference"] == 0.15
    assert found["candidate"]["failed"] == 2
    out = shell.ok("shadow", "wine", "--status").out
    for told in (
        "differs",
        "70.00%",
        "order-66: price[0] by 2; name[0] label",
        "20 busy",
        "2 of 2002 failed",
    ):
        assert told in out


def test_a_tolerance_for_an_output_that_no_answer_has_is_told(shell: Shell):
    two_versions(shell)
    begun = begin(shell, "--tolerance", "prise=0.01", "--tolerance", "price=0.01")
    assert shell.ok("shadow", "wine", "--status", "--json").json()["unused_tolerances"] == [], (
        "nothing is known yet"
    )
    report(shell, begun["id"], "a", findings=findings(0, 10))
    assert shell.ok("shadow", "wine", "--status", "--json").json()["unused_tolerances"] == ["prise"]
    assert "no answer has an output called prise" in shell.ok("shadow", "wine", "--status").out


def test_a_tolerance_for_an_output_that_answers_may_have_is_not_told(shell: Shell):
    """Counts are kept by the start of a long name, and of 200 names: the rest share one."""
    two_versions(shell)
    long, other = "x" * 121, "y" * 121
    begun = begin(shell, "--tolerance", f"{long}=0.01", "--tolerance", f"{other}=0.01")

    def unused(gateway: str, *outputs: str) -> Any:
        pairs = PairFigures()
        for name in outputs:
            pairs.count(AnswerComparison(outputs={name: OutputComparison()}))
        report(shell, begun["id"], gateway, findings=Findings(pairs=pairs))
        return shell.ok("shadow", "wine", "--status", "--json").json()["unused_tolerances"]

    assert unused("a", long) == [other]
    assert unused("b", *map(str, range(250)), other) == []


def test_stopping_it_says_what_was_found(shell: Shell):
    two_versions(shell)
    begun = begin(shell)
    report(shell, begun["id"], "a", findings=findings(0, 2000))
    out = shell.ok("shadow", "wine", "--stop", "--reason", "seen enough").out
    assert "agrees" in out or "fails" in out
    assert "it was stopped" in out
    assert shell.ok("shadow", "wine", "--status", "--json").json()["running"] is False
    (record,) = [one for one in shell.ok("evidence", "wine@4", "--json").json() if one["sort"] == "shadow"]
    assert record["counts"]
    assert record["facts"]["compared"] == 2000
    assert record["facts"]["worst"][0]["request_id"] == "order-66"


def test_what_a_shadow_that_ended_by_itself_has_found_is_kept_before_the_next_one_begins(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    two_versions(shell)
    begun = begin(shell)
    report(shell, begun["id"], "a", findings=findings(0, 2000))
    ends = datetime.fromisoformat(begun["until"]).timestamp()
    monkeypatch.setattr("gateway.cli.models.shadow.time.time", lambda: ends + 1)
    assert "--stop keeps" in shell.ok("shadow", "wine", "--status", "--json").err
    begin(shell)
    (record,) = [one for one in shell.ok("evidence", "wine@4", "--json").json() if one["sort"] == "shadow"]
    assert (record["facts"]["shadow"], record["facts"]["compared"]) == (begun["id"], 2000)
    assert shell.ok("shadow", "wine", "--status", "--json").json()["sampled"] == 0


def test_a_shadow_that_could_not_be_written_costs_no_figures(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    two_versions(shell)
    begun = begin(shell)
    report(shell, begun["id"], "a", findings=findings(0, 2000))
    ends = datetime.fromisoformat(begun["until"]).timestamp()
    monkeypatch.setattr("gateway.cli.models.shadow.time.time", lambda: ends + 1)

    async def refuse(*_: Any, **__: Any) -> int:
        raise Unavailable("away")

    with monkeypatch.context() as away:
        away.setattr(SqliteRegistry, "write", refuse)
        assert shell("shadow", "wine", "4", "--yes").code != 0
    assert shell.ok("shadow", "wine", "--status", "--json").json()["compared"] == 2000


def test_the_verdict_is_bound_to_the_image_that_the_verification_found(shell: Shell):
    """Otherwise it would pass for any image that is promoted under the same version."""
    two_versions(shell)
    image = f"registry.example/wine@sha256:{'a' * 64}"
    shell.verified("wine", "4", image=image)
    begun = begin(shell)
    report(shell, begun["id"], "a", findings=findings(0, 2000))
    shell.ok("shadow", "wine", "--stop")
    (record,) = [one for one in shell.ok("evidence", "wine@4", "--json").json() if one["sort"] == "shadow"]
    assert record["image"] == image
    assert (record["facts"]["tolerance"], record["facts"]["tolerances"]) == (1e-6, {})


async def _write(url: str, body: dict[str, Any]) -> None:
    registry = open_registry(url)
    try:
        old = await registry.read(SHADOWS, "wine")
        await registry.write(
            Put(kind=SHADOWS, name="wine", body=body, expected=old.revision if old else 0), author="x"
        )
    finally:
        await registry.close()


def test_a_document_that_nobody_can_read_is_told(shell: Shell):
    two_versions(shell)
    asyncio.run(_write(shell.registry, {"model": "wine"}))
    ended = shell("shadow", "wine", "--status")
    assert ended.code == 65
    assert "cannot be read" in ended.err
    begin(shell)
    assert "runs until" in shell.ok("shadow", "wine", "--status").out, "another one takes its place"


def test_a_report_that_nobody_can_read_is_left_out_and_told(shell: Shell):
    two_versions(shell)
    begun = begin(shell)
    report(shell, begun["id"], "g1", findings=findings(0, 10))

    async def damage() -> None:
        registry = open_registry(shell.registry)
        await registry.write_ephemeral(FIGURES, "wine.g2", {"shadow": 7}, expected=0)
        await registry.close()

    asyncio.run(damage())
    ended = shell.ok("shadow", "wine", "--status", "--json")
    assert ended.json()["compared"] == 10
    assert "wine.g2 cannot be read" in ended.err

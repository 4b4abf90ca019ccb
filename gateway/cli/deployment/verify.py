"""`chips verify`: check that a backend keeps the backend contract. The backend may be in any language."""

import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.cli.deployment.prepare_unpublished_backend import StagedBackend, stage_backend
from gateway.cli.support import console
from gateway.cli.support.backend_credentials import HeaderOption, headers_or_id_token, parse_header
from gateway.cli.support.console import EX_DATAERR, EX_PROTOCOL, EX_UNAVAILABLE, EX_USAGE, Failure
from gateway.cli.support.read_published_artifact import RowsOption
from gateway.core.model import check_backend_url
from gateway.settings import process_environment
from gateway.verify.backend_process import BackendProcess
from gateway.verify.conformance_check_type import Check, CheckResult
from gateway.verify.report import as_json as report_as_json
from gateway.verify.report import as_junit
from gateway.verify.run import (
    ArtifactManifestSubset,
    BackendNotReady,
    VerificationReport,
    read_samples,
    select_checks,
    started_backend,
)
from gateway.verify.run import verify as run_checks


def verify(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL|DIR",
            help="The backend's address, or a folder with backend.toml; not needed where --command starts it.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The model it serves; otherwise the one it says itself.")] = "",
    version: Annotated[str, typer.Option(help="The version; otherwise the one it says itself.")] = "",
    samples: Annotated[
        Path | None, typer.Option(help="Its manifest.json, whose samples must come out as published.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Start the backend by this command, with PORT set; then its log, start and end are checked too."
        ),
    ] = None,
    rows: RowsOption = None,
    header: HeaderOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Name pattern of checks to run, such as health or tensors/*; may be repeated."),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Only what `chips register` checks.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is ready.")] = 60.0,
    junit: Annotated[Path | None, typer.Option(help="Write the results as JUnit XML to this file.")] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the checks and what the contract says.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Check a backend against the contract.

    The backend may be in any language. The checks cover routes, errors, headers, bad input, load, log and life. Each failure
    says what was sent, what came, and what the contract says. Ends with 76 where a check fails.

    Examples:

    `chips verify models/churn`

    `chips verify http://127.0.0.1:9001 --samples manifest.json`

    `chips verify --command "Rscript serve.R" --samples artifact/manifest.json --junit results.xml`
    """
    is_folder = url is not None and Path(url).is_dir()
    checks = select_checks(only or [], short=short or (is_folder and not only))
    if not checks:
        raise Failure(f"no check matches {', '.join(only or [])}", hint="chips verify --list", code=EX_USAGE)
    if listing:
        _list(checks, as_json=as_json)
        return
    if is_folder and command is None:
        with stage_backend(Path(url or "")) as candidate:
            _run_checks(
                None, candidate, candidate.manifest, checks=checks, wait_s=wait, junit=junit, as_json=as_json
            )
        return
    if (url is None) == (command is None):
        raise Failure("give the backend's address, or --command to start it", code=EX_USAGE)
    try:
        manifest = read_samples(samples) if samples is not None else ArtifactManifestSubset()
        url = check_backend_url(url) if url is not None else None
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    manifest = manifest if rows is None else msgspec.structs.replace(manifest, rows=rows)
    given = [parse_header(text) for text in header or []]
    starts = None if command is None else StagedBackend(command, process_environment(), Path(), manifest)
    _run_checks(
        url,
        starts,
        manifest,
        model=model,
        version=version,
        given=given,
        checks=checks,
        wait_s=wait,
        junit=junit,
        as_json=as_json,
    )


def _run_checks(
    url: str | None,
    starts: StagedBackend | None,
    manifest: ArtifactManifestSubset,
    *,
    model: str = "",
    version: str = "",
    given: Sequence[tuple[str, str]] = (),
    checks: Sequence[Check],
    wait_s: float,
    junit: Path | None,
    as_json: bool,
) -> None:
    if junit is not None:
        _check_writable(junit)

    # What the kit has started must end also where the kit itself is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    async def work() -> VerificationReport:
        fields = tuple(given) if url is None else await headers_or_id_token(url, list(given))
        async with _backend(url, starts) as (address, process):
            return await run_checks(
                address,
                model=model,
                version=version,
                manifest=manifest,
                process=process,
                fields=fields,
                checks=checks,
                wait_s=wait_s,
                on_result=_silent if as_json else _tell,
            )

    _finish(console.run_async(work()), junit, as_json=as_json)


def _finish(report: VerificationReport, junit: Path | None, *, as_json: bool) -> None:
    if junit is not None:
        junit.write_bytes(as_junit(report))
    if as_json:
        console.print_json(report_as_json(report))
    else:
        _sum_up(report)
    if report.failed:
        raise typer.Exit(EX_PROTOCOL)


@asynccontextmanager
async def _backend(
    url: str | None, starts: StagedBackend | None
) -> AsyncIterator[tuple[str, BackendProcess | None]]:
    """The backend's address; where a command starts it, its process too."""
    try:
        if starts is None:
            yield url or "", None
        else:
            async with started_backend(starts.command, starts.environ, starts.folder) as running:
                yield running
    except BackendNotReady as error:
        raise Failure(str(error), hint=error.hint, code=EX_UNAVAILABLE) from None


def _check_writable(path: Path) -> None:
    """Before minutes of checks whose results would then be lost."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}", code=EX_DATAERR) from None


def _silent(_: CheckResult) -> None: ...


def _list(checks: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        console.print_json([{"name": c.name, "contract": c.contract, "short": c.short} for c in checks])
        return
    from rich.table import Table

    table = Table("check", "the contract says", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, check.contract)
    console.out.print(table)


def _tell(result: CheckResult) -> None:
    """What failed at once and in full; what went well only in the table at the end."""
    if result.outcome != "failed":
        return
    console.out.print(f"failed    {result.check.name}", style="bold red")
    for label, text in (
        ("contract", result.check.contract),
        ("but", result.why),
        ("sent", result.sent),
        ("came", result.response),
    ):
        for number, line in enumerate(text.splitlines()):
            console.say(f" {label}" if not number else "", line)
    console.out.print("")


def _sum_up(report: VerificationReport) -> None:
    from rich.table import Table

    counts: dict[str, Counter[str]] = {}
    for result in report.results:
        counts.setdefault(result.check.group, Counter())[result.outcome] += 1
    table = Table("checks", "passed", "failed", "skipped", box=None, pad_edge=False)
    for group, count in counts.items():
        cells = [str(count[outcome] or "–") for outcome in ("passed", "failed", "skipped")]
        table.add_row(group, *cells, style="red" if count["failed"] else "")
    console.out.print(table)
    for why in dict.fromkeys(result.why for result in report.results if result.outcome == "skipped"):
        names = [r.check.name for r in report.results if r.outcome == "skipped" and r.why == why]
        console.say("skipped", f"{', '.join(names)}: {why}", style="yellow")
    served = f"{report.model}@{report.version} at {report.url}"
    if report.failed:
        console.say(
            "broken",
            f"{served}: {len(report.failed)} of {len(report.results)} checks failed",
            style="bold red",
        )
    else:
        console.say(
            "keeps",
            f"{served} keeps the contract: {report.count('passed')} checks in {report.seconds:.1f} s",
            style="bold green",
        )

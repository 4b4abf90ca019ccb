"""`chips doctor`: check this machine and its environment for problems.

It shows what is wrong, and the command that fixes it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import typer

from gateway.cli.setup import doctor_checks
from gateway.cli.setup.doctor_backends_match_registry import check_registered_backend
from gateway.cli.setup.doctor_checks import (
    Finding,
    check_anchor_store_configured,
    check_artifact_store,
    check_cloud_run_body_limit,
    check_cloud_run_services,
    check_emulator_variables,
    check_google_credentials,
    check_programs_and_packages,
    check_takes_traffic,
    read_models,
)
from gateway.cli.setup.doctor_deploy_erase_roles import check_deploy_erase_roles, firestore_database_of
from gateway.cli.setup.doctor_unapproved_versions import check_sign_off
from gateway.cli.support import console
from gateway.cli.support.console import Failure
from gateway.cli.support.wait_until_gateway_serves import WatchedGatewayOption
from gateway.registry.base import RegistryError
from gateway.settings import SettingsError, mask_url


def doctor(
    gateway: WatchedGatewayOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Check this machine and its environment for problems.

    It says for each thing what is wrong and what fixes it. It changes nothing, and ends with 1 where something is wrong.

    Examples:

    `chips doctor`

    `chips --env prod doctor --json`
    """
    findings: list[Finding] = []

    async def work() -> None:
        async with aclosing(_examine(registry_url, gateway)) as found:
            async for finding in found:
                findings.append(finding)
                if not as_json:
                    _tell(finding)

    console.run_async(work())
    wrong = [finding for finding in findings if finding.outcome == "wrong"]
    if as_json:
        console.print_json([finding._asdict() for finding in findings])
    else:
        warnings = sum(finding.outcome == "warning" for finding in findings)
        console.say(
            "healthy" if not wrong else "has problems",
            f"{len(findings)} checks, {len(wrong)} wrong, {warnings} to look at",
            style="bold red" if wrong else "bold green",
        )
    if wrong:
        raise typer.Exit(1)


def _tell(finding: Finding) -> None:
    style = {"ok": "green", "warning": "yellow", "wrong": "bold red", "skipped": "dim"}[finding.outcome]
    console.say(finding.outcome, f"{finding.subject}: {finding.text}", style=style)
    if finding.fix:
        console.say("", f"  → {finding.fix}")


_PROBES_AT_ONCE: Final = 8


async def _examine(registry_url: str | None, address: str | None) -> AsyncGenerator[Finding, None]:
    for finding in check_programs_and_packages():
        yield finding
    try:
        settings = console.settings_for(registry_url)
    except (SettingsError, Failure) as error:
        yield Finding("settings", "wrong", str(error), "chips check")
        return
    yield Finding("settings", "ok", f"registry {mask_url(settings.registry)}")
    for finding in check_emulator_variables(settings):
        yield finding
    for finding in await asyncio.to_thread(check_google_credentials, settings):
        yield finding
    yield await asyncio.to_thread(check_artifact_store, settings)
    try:
        async with console.open_guarded_registry(settings) as registry:
            listing = await registry.load_mirrored()
            signed = [one async for one in check_sign_off(registry, read_models(listing)[0])]
            roles = await check_deploy_erase_roles(registry, firestore_database_of(settings.registry))
    except RegistryError as error:
        yield Finding("registry", "wrong", str(error), "is it the right one? chips env show, chips check")
        return
    models, problems = read_models(listing)
    yield Finding("registry", "ok", f"generation {listing.generation}, {len(models)} models")
    for found in (*problems, check_anchor_store_configured(settings), *signed, *roles):
        yield found
    async for finding in doctor_checks.check_gateway(console.gateway_address(address, settings), listing):
        yield finding
    for model in models:
        for finding in (*check_cloud_run_body_limit(model), *check_takes_traffic(model)):
            yield finding
    for finding in await asyncio.to_thread(check_cloud_run_services, models):
        yield finding
    gate = asyncio.Semaphore(_PROBES_AT_ONCE)
    probes = [
        check_registered_backend(model, index, gate)
        for model in models
        for index in range(len(model.backends))
    ]
    for finding in await asyncio.gather(*probes):
        yield finding

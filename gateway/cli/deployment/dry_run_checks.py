"""The checks of `chips deploy --dry-run`: what can be checked and tried of a deployment without changing anything.

They check the owner, the target and the artifact, try the artifact, and look whether it is published. The steps are shown, too.
"""

from contextlib import closing

from gateway.artifacts.artifact_store_interface import StoreError
from gateway.cli.artifacts.publish import store_failure
from gateway.cli.deployment.deployment_run import (
    DeploymentRun,
    check_artifact_publishable,
    check_same_owner,
    hint_of_step,
    is_artifact_published,
    try_artifact,
)
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.deploy.backend_folder import FolderError
from gateway.deploy.deployment_steps import STEPS
from gateway.deploy.target import DeployError, Tell


def check_without_changes(run: DeploymentRun, *, as_json: bool) -> None:
    """Check a deployment without changing anything.

    This dry run shows the results by step. Raises Failure where a check fails.
    """
    source = run.source
    found: dict[str, str] = {}
    quiet: Tell = lambda text: found.__setitem__("warnings", f"{found.get('warnings', '')}{text}\n")  # noqa: E731
    step = "check"
    try:
        console.run_async(check_same_owner(run))
        found["check"] = f"{run.target.require_deployable(source)}; {check_artifact_publishable(run, quiet)}"
        step = "try"
        found["try"] = try_artifact(run, quiet)
        step = "publish"
        with closing(run.open_artifact_store()) as store:
            address = store.address(source.model, source.version)
        found["publish"] = f"{address} " + ("(there already)" if is_artifact_published(run) else "(new)")
    except DeployError as error:
        raise Failure(
            f"{step}: {error}", hint=error.hint or hint_of_step(step, run), code=error.code
        ) from error
    except FolderError as error:
        raise Failure(str(error), code=EX_DATAERR) from error
    except StoreError as error:
        raise store_failure(error) from error
    what = dict(STEPS)
    steps = [(name, found.get(name) or what[name]) for name, _ in STEPS]
    if as_json:
        console.print_json(
            {
                "model": source.model,
                "version": source.version,
                "target": run.target.name,
                "artifacts": run.artifact_store_url,
                "steps": [name for name, _ in STEPS],
                "found": found,
            }
        )
        return
    console.say("plan", f"{source.model}@{source.version} from {source.path} to {run.target.name}")
    for number, (name, text) in enumerate(steps, 1):
        done = "checked" if name in found else "would"
        console.out.print(f"  {number} {name:<9} {done:<8} {text}")
    for line in found.get("warnings", "").splitlines():
        console.say("", line, style="yellow")
    console.say("dry run", "nothing was changed", style="bold yellow")

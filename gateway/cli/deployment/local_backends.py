"""`chips ps`, `up`, `logs`, `restart` and `stop`: manage the local backends.

`chips deploy --target local` started them on this machine.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_UNAVAILABLE, Failure
from gateway.core.name_validation import check_model_name, check_version
from gateway.deploy.local_process_target import BackendSpec, LocalBackend, LocalProcessTarget
from gateway.settings import process_environment, state_folder

_POLL_S: Final = 0.2
_READY_WITHIN_S: Final = 120.0

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model, as it was deployed.")]
OneOrAllVersions = Annotated[str, typer.Option("--version", help="One version; otherwise all of them.")]
WaitOption = Annotated[float, typer.Option(min=0, help="Seconds to wait until they are ready.")]


def ps(as_json: console.JsonOption = False) -> None:
    """List the backends of this machine.

    It shows where they listen, whether they are ready, how often they crashed.

    Example: `chips ps`
    """
    found = [_described(local, spec) for local, spec in _all()]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.out.print("no backend was deployed to this machine; chips deploy DIR --target local does")
        return
    from rich.table import Table

    table = Table("backend", "state", "address", "process", "since", "fell", box=None, pad_edge=False)
    for entry in found:
        table.add_row(
            f"{entry['model']}@{entry['version']}",
            str(entry["state"]),
            str(entry["url"]),
            str(entry["pid"] or "–"),
            _ago(entry["since"]),
            _fell(entry),
            style="" if entry["state"] == "ready" else "yellow",
        )
    console.out.print(table)
    if any(entry["state"] == "not running" for entry in found):
        console.say("next", "chips up starts what is not running")


def up(wait: WaitOption = _READY_WITHIN_S, as_json: console.JsonOption = False) -> None:
    """Start the backends of this machine that are not running.

    It helps after a reboot; stopped ones stay stopped.

    Example: `chips up`
    """
    started = []
    for local, spec in _all():
        if spec.wanted and local.status is None:
            local.launch_supervisor(process_environment())
            started.append(local)
    _wait(started, wait, as_json=as_json, done="up", nothing="all that should run runs")


def restart(
    model: ModelArgument,
    version: OneOrAllVersions = "",
    wait: WaitOption = _READY_WITHIN_S,
    as_json: console.JsonOption = False,
) -> None:
    """Restart a model's backends on this machine, all versions or one.

    They keep their address.

    Example: `chips restart wine --version 3`
    """
    found = _find(model, version)
    for local, spec in found:
        local.end()
        local.write_spec(msgspec.structs.replace(spec, wanted=True))
        local.launch_supervisor(process_environment())
    _wait([local for local, _ in found], wait, as_json=as_json, done="restarted", nothing="")


def stop(model: ModelArgument, version: OneOrAllVersions = "", as_json: console.JsonOption = False) -> None:
    """Stop a model's backends on this machine.

    They stay stopped until `chips restart`. The registry keeps them; `chips undeploy` does not.

    Example: `chips stop wine --version 2`
    """
    ended = []
    for local, spec in _find(model, version):
        local.write_spec(msgspec.structs.replace(spec, wanted=False))
        ended.append({"model": spec.model, "version": spec.version, "stopped": local.end()})
    if as_json:
        console.print_json(ended)
        return
    for entry in ended:
        console.say("stopped" if entry["stopped"] else "unchanged", f"{entry['model']}@{entry['version']}")
    console.say("next", f"chips restart {model}")


def logs(
    model: ModelArgument,
    version: OneOrAllVersions = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
) -> None:
    """Print the log of a backend on this machine.

    Example: `chips logs wine --follow`
    """
    found = _logs_of(model, version)
    for path in found:
        if len(found) > 1:
            console.note(str(path))
        for line in _last(path, lines):
            console.out.print(line)
    while follow:  # until Ctrl-C
        for line in _new_lines(found):
            console.out.print(line)


def _target() -> LocalProcessTarget:
    return LocalProcessTarget(state_folder() / "local", process_environment())


def _all(model: str | None = None, version: str | None = None) -> list[tuple[LocalBackend, BackendSpec]]:
    found = ((local, local.spec) for local in _target().list_backends(model, version))
    return [(local, spec) for local, spec in found if spec is not None]


def _find(model: str, version: str, *, may_lack: bool = False) -> list[tuple[LocalBackend, BackendSpec]]:
    try:
        check_model_name(model)
        if version:
            check_version(version)
    except ValueError as error:
        raise Failure(str(error), hint="chips ps", code=EX_DATAERR) from None
    found = _all(model, version or None)
    if not found and not may_lack:
        what = f"{model}@{version}" if version else f'"{model}"'
        raise Failure(f"no backend of {what} was deployed to this machine", hint="chips ps", code=EX_DATAERR)
    return found


def _described(local: LocalBackend, spec: BackendSpec, *, is_ready: bool = False) -> dict[str, Any]:
    """What is known of a backend. `is_ready`: it was asked just before."""
    state = local.status
    if state is None:
        text = "not running" if spec.wanted else "stopped"
    elif state.backend is None:
        text = "fell, starts again"
    else:
        text = "ready" if is_ready or local.is_ready() else "starting"
    return {
        "model": spec.model,
        "version": spec.version,
        "state": text,
        "url": spec.url,
        "pid": state.backend.pid if state is not None and state.backend is not None else None,
        "since": state.since if state is not None else None,
        "fell": state.ends if state is not None else 0,
        "last_exit": state.last_exit if state is not None else None,
        "artifact": spec.artifact,
        "folder": spec.folder,
        "log": spec.log,
    }


def _wait(started: Sequence[LocalBackend], wait_s: float, *, as_json: bool, done: str, nothing: str) -> None:
    """Until all are ready. Raises Failure for those that are not in time."""
    give_up_at = time.monotonic() + wait_s
    late = list(started)
    while late and time.monotonic() < give_up_at:
        late = [local for local in late if not local.is_ready()]
        if late:
            time.sleep(_POLL_S)
    found = [
        _described(local, spec, is_ready=local not in late)
        for local in started
        if (spec := local.spec) is not None
    ]
    if as_json:
        console.print_json(found)
    else:
        for entry in found:
            console.say(done, f"{entry['model']}@{entry['version']} {entry['state']} at {entry['url']}")
        if not found:
            console.say(done, nothing)
    if late:
        names = sorted({spec.model for local in late if (spec := local.spec) is not None})
        raise Failure(
            f"not ready within {wait_s:g} s: {', '.join(names)}",
            hint=f"chips logs {names[0]}",
            code=EX_UNAVAILABLE,
        )


def _logs_of(model: str, version: str) -> list[Path]:
    """The logs of what is noted; of a version that never came up, that of its last attempt."""
    noted = [Path(spec.log) for _, spec in _find(model, version, may_lack=True)]
    root = state_folder() / "local"
    left = sorted(root.glob(f"{model}/{version or '*'}/*.log"), key=lambda path: path.stat().st_mtime)[-1:]
    found = [path for path in noted if path.exists()] or left
    if not found:
        _find(model, version)
        raise Failure(f"{model} has written nothing yet", hint="chips ps", code=EX_DATAERR)
    return found


def _last(path: Path, count: int) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-count:] if count else []


def _new_lines(paths: Sequence[Path]) -> Iterator[str]:
    """What is written from now on, also where a log is emptied in between."""
    streams = [path.open(errors="replace") for path in paths]
    try:
        for stream in streams:
            stream.seek(0, 2)
        while True:
            for path, stream in zip(paths, streams, strict=True):
                if path.exists() and path.stat().st_size < stream.tell():
                    stream.seek(0)
                yield from (line.rstrip("\n") for line in stream)
            time.sleep(_POLL_S)
    finally:
        for stream in streams:
            stream.close()


def _ago(since: float | None) -> str:
    if since is None:
        return "–"
    seconds = max(0.0, time.time() - since)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _fell(entry: dict[str, Any]) -> str:
    if not entry["fell"]:
        return "–"
    return f"{entry['fell']} times, last with {entry['last_exit']}"

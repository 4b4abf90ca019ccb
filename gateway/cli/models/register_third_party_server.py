"""Register a model server that is not a CHIPS backend.

MLServer and TorchServe are such. It detects the kind, and asks for confirmation once.
"""

import sys
from typing import Any

import typer

from gateway.cli.support import console
from gateway.cli.support.backend_probe import ModelMetadata
from gateway.cli.support.console import EX_USAGE, Failure
from gateway.cli.support.model_server_detection import (
    UNKNOWN_KIND,
    ThirdPartyModelServer,
    detect_model_server,
)

FIRST_VERSION = "1"


async def resolve_model_server(
    name: str,
    url: str,
    headers: dict[str, str],
    failure: Failure | None,
    *,
    path: str | None,
    version: str | None,
    yes: bool,
) -> ThirdPartyModelServer:
    """The model server at `url`, as detected or described.

    `path` and `version` describe it. Asks on a terminal for confirmation unless everything was given. Raises Failure:
    `failure` where nothing was detected and nothing was given.
    """
    found = await detect_model_server(url, name, headers)
    if found is None and path is None:
        raise failure or Failure(f"what answers at {url} is not recognised", code=EX_USAGE)
    service = found or ThirdPartyModelServer(UNKNOWN_KIND, path or "/")
    chosen = ThirdPartyModelServer(
        service.kind,
        path or service.path,
        version or service.version,
        service.example if path in {None, service.path} else None,
        service.inputs,
        service.outputs,
        service.others,
    )
    if not yes and not (path and version):
        _confirm(name, url, chosen)
    return chosen


def _confirm(name: str, url: str, service: ThirdPartyModelServer) -> None:
    proposal = f"{url} looks like {service.kind}: path {service.path}, version {service.version}"
    others = f" (other paths: {', '.join(service.others)})" if service.others else ""
    if not sys.stdin.isatty():
        raise Failure(
            f"{proposal}{others}",
            hint=f"chips register {name} {url} --yes takes that; --path PATH and --version VERSION change it",
            code=EX_USAGE,
        )
    console.err.print(proposal + others)
    typer.confirm("Register it so?", default=True, abort=True, err=True)


def to_model_metadata(name: str, detected: ThirdPartyModelServer) -> ModelMetadata:
    """Convert what is known of a server to the metadata of a CHIPS backend."""
    return ModelMetadata(
        name=name,
        versions=(detected.version,),
        platform=detected.kind,
        inputs=detected.inputs,
        outputs=detected.outputs,
    )


def describe_server(service: ThirdPartyModelServer) -> dict[str, Any]:
    """What was detected of the server, as fields for JSON output."""
    return {"service": service.kind, "path": service.path, "example": service.example}

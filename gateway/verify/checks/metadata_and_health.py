"""Checks of a backend's metadata and health endpoints. They also check its OpenAPI document."""

import msgspec

from gateway.artifacts.manifest import DATATYPES
from gateway.core.model import Tensor
from gateway.verify.conformance_check_type import (
    CheckContext,
    ContractViolation,
    check,
    require_json,
    require_status,
)


@check("about/live", "GET /v2/health/live answers 200 as soon as the process answers", short=True)
async def live(context: CheckContext) -> None:
    require_status(await context.get("/v2/health/live"), 200)


@check(
    "about/ready", "GET /v2/health/ready answers 200 when the model is loaded and warm, else 503", short=True
)
async def ready(context: CheckContext) -> None:
    require_status(await context.get("/v2/health/ready"), 200)


@check("about/model-ready", "GET /v2/models/{model}/ready answers 200", short=True)
async def model_ready(context: CheckContext) -> None:
    require_status(await context.get(f"{context.open_inference}/ready"), 200)


@check("about/metadata", "GET /v2/models/{model} tells name, versions, platform, inputs, outputs", short=True)
async def metadata(context: CheckContext) -> None:
    response = await context.get(context.open_inference)
    require_status(response, 200)
    content = require_json(response)
    if not isinstance(content, dict):
        raise ContractViolation("the metadata is not an object")
    if content.get("name") != context.model:
        raise ContractViolation(f"name is {content.get('name')!r} instead of {context.model!r}")
    versions = content.get("versions")
    if not isinstance(versions, list) or not all(isinstance(version, str) for version in versions):
        raise ContractViolation(f"versions is {versions!r}, not a list of strings")
    if context.version and context.version not in versions:
        raise ContractViolation(f"versions is {versions!r}, without {context.version!r}")
    if not isinstance(content.get("platform"), str) or not content["platform"]:
        raise ContractViolation("platform is not a text")
    for side in ("inputs", "outputs"):
        _require_tensors(side, content.get(side))


def _require_tensors(side: str, listed: object) -> None:
    try:
        tensors = msgspec.convert(listed, list[Tensor])
    except msgspec.ValidationError as error:
        raise ContractViolation(f"{side} is not a list of name, datatype and shape: {error}") from None
    for tensor in tensors:
        if tensor.datatype not in DATATYPES:
            raise ContractViolation(
                f"{side}: {tensor.name} has the datatype {tensor.datatype!r}, which the protocol does not know"
            )
        if not tensor.shape:
            raise ContractViolation(f"{side}: {tensor.name} has no shape")


@check("about/version-metadata", "GET /v2/models/{model}/versions/{v} tells the same", short=False)
async def version_metadata(context: CheckContext) -> None:
    response = await context.get(f"{context.open_inference}/versions/{context.version}")
    require_status(response, 200)
    content = require_json(response)
    if not isinstance(content, dict) or content.get("name") != context.model:
        raise ContractViolation("it is not this model's metadata")


@check(
    "about/concurrency",
    "the metadata's parameters.concurrency says how many predictions run at once",
    short=True,
)
async def concurrency(context: CheckContext) -> None:
    content = require_json(await context.get(context.open_inference))
    parameters = content.get("parameters") if isinstance(content, dict) else None
    declared = parameters.get("concurrency") if isinstance(parameters, dict) else None
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
        raise ContractViolation(f"parameters.concurrency is {declared!r}, not a whole number of at least 1")


@check("about/openapi", "GET /openapi.json is OpenAPI 3.1 of all routes, with the model's real input fields")
async def openapi(context: CheckContext) -> None:
    response = await context.get("/openapi.json")
    require_status(response, 200)
    content = require_json(response)
    if not isinstance(content, dict) or not str(content.get("openapi", "")).startswith("3.1"):
        raise ContractViolation("it does not say openapi: 3.1.x")
    info = content.get("info")
    if not isinstance(info, dict) or not info.get("title") or not info.get("version"):
        raise ContractViolation("info has no title or no version")
    paths = content.get("paths")
    if not isinstance(paths, dict):
        raise ContractViolation("it has no paths")
    infer = {path for path in paths if path.startswith("/v2/models/") and path.endswith("/infer")}
    missing = [path for path in ("/predict", "/v2/health/live", "/v2/health/ready") if path not in paths]
    if missing or not infer:
        raise ContractViolation(f"paths lacks {', '.join(missing) or '/v2/models/{model}/infer'}")
    text = response.body.decode("utf-8", "replace")
    unnamed = [
        tensor.name for tensor in context.inputs if msgspec.json.encode(tensor.name).decode() not in text
    ]
    if unnamed:
        raise ContractViolation(f"it does not name the model's inputs {', '.join(unnamed[:10])}")


CHECKS = (live, ready, model_ready, metadata, version_metadata, concurrency, openapi)

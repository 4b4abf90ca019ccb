"""Health, metadata and the OpenAPI document: what a backend says about itself."""

import msgspec

from gateway.artifacts.manifest import DATATYPES
from gateway.core.model import Tensor
from gateway.verify.check import Bench, Wrong, check, require_json, require_status


@check("about/live", "GET /v2/health/live answers 200 as soon as the process answers", short=True)
async def live(bench: Bench) -> None:
    require_status(await bench.get("/v2/health/live"), 200)


@check(
    "about/ready", "GET /v2/health/ready answers 200 when the model is loaded and warm, else 503", short=True
)
async def ready(bench: Bench) -> None:
    require_status(await bench.get("/v2/health/ready"), 200)


@check("about/model-ready", "GET /v2/models/{model}/ready answers 200", short=True)
async def model_ready(bench: Bench) -> None:
    require_status(await bench.get(f"{bench.open_inference}/ready"), 200)


@check("about/metadata", "GET /v2/models/{model} tells name, versions, platform, inputs, outputs", short=True)
async def metadata(bench: Bench) -> None:
    came = await bench.get(bench.open_inference)
    require_status(came, 200)
    content = require_json(came)
    if not isinstance(content, dict):
        raise Wrong("the metadata is not an object")
    if content.get("name") != bench.model:
        raise Wrong(f"name is {content.get('name')!r} instead of {bench.model!r}")
    versions = content.get("versions")
    if not isinstance(versions, list) or not all(isinstance(version, str) for version in versions):
        raise Wrong(f"versions is {versions!r}, not a list of strings")
    if bench.version and bench.version not in versions:
        raise Wrong(f"versions is {versions!r}, without {bench.version!r}")
    if not isinstance(content.get("platform"), str) or not content["platform"]:
        raise Wrong("platform is not a text")
    for side in ("inputs", "outputs"):
        _require_tensors(side, content.get(side))


def _require_tensors(side: str, listed: object) -> None:
    try:
        tensors = msgspec.convert(listed, list[Tensor])
    except msgspec.ValidationError as error:
        raise Wrong(f"{side} is not a list of name, datatype and shape: {error}") from None
    for tensor in tensors:
        if tensor.datatype not in DATATYPES:
            raise Wrong(
                f"{side}: {tensor.name} has the datatype {tensor.datatype!r}, which the protocol does not know"
            )
        if not tensor.shape:
            raise Wrong(f"{side}: {tensor.name} has no shape")


@check("about/version-metadata", "GET /v2/models/{model}/versions/{v} tells the same", short=False)
async def version_metadata(bench: Bench) -> None:
    came = await bench.get(f"{bench.open_inference}/versions/{bench.version}")
    require_status(came, 200)
    content = require_json(came)
    if not isinstance(content, dict) or content.get("name") != bench.model:
        raise Wrong("it is not this model's metadata")


@check(
    "about/concurrency",
    "the metadata's parameters.concurrency says how many predictions run at once",
    short=True,
)
async def concurrency(bench: Bench) -> None:
    content = require_json(await bench.get(bench.open_inference))
    parameters = content.get("parameters") if isinstance(content, dict) else None
    declared = parameters.get("concurrency") if isinstance(parameters, dict) else None
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
        raise Wrong(f"parameters.concurrency is {declared!r}, not a whole number of at least 1")


@check("about/openapi", "GET /openapi.json is OpenAPI 3.1 of all routes, with the model's real input fields")
async def openapi(bench: Bench) -> None:
    came = await bench.get("/openapi.json")
    require_status(came, 200)
    content = require_json(came)
    if not isinstance(content, dict) or not str(content.get("openapi", "")).startswith("3.1"):
        raise Wrong("it does not say openapi: 3.1.x")
    info = content.get("info")
    if not isinstance(info, dict) or not info.get("title") or not info.get("version"):
        raise Wrong("info has no title or no version")
    paths = content.get("paths")
    if not isinstance(paths, dict):
        raise Wrong("it has no paths")
    infer = {path for path in paths if path.startswith("/v2/models/") and path.endswith("/infer")}
    missing = [path for path in ("/predict", "/v2/health/live", "/v2/health/ready") if path not in paths]
    if missing or not infer:
        raise Wrong(f"paths lacks {', '.join(missing) or '/v2/models/{model}/infer'}")
    text = came.body.decode("utf-8", "replace")
    unnamed = [
        tensor.name for tensor in bench.inputs if msgspec.json.encode(tensor.name).decode() not in text
    ]
    if unnamed:
        raise Wrong(f"it does not name the model's inputs {', '.join(unnamed[:10])}")


CHECKS = (live, ready, model_ready, metadata, version_metadata, concurrency, openapi)

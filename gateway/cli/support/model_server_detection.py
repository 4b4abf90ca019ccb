"""Detect which kind of model server answers at a URL.

MLServer, TorchServe, vLLM and others show it in their metadata pages. Nothing is scored. Each kind is recognised by the
routes that its own documentation names; where several fit, the more particular one counts.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from gateway.cli.support.example_from_openapi import (
    post_operations,
    request_body_example,
    server_base_paths,
)
from gateway.core.model import Tensor
from gateway.core.read_at_most import read_at_most

UNKNOWN_KIND: Final = "a service of another kind"  # the platform of one that nothing is known of
LARGEST_ANSWER: Final = 4 << 20  # bytes of one page
_TIMEOUT_S: Final = 5.0
_FIRST_VERSION: Final = "1"
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+)+\S{0,20}")
_LIKELY: Final = ("predict", "score", "infer", "invocations", "classify", "generate")


@dataclass(frozen=True)
class ThirdPartyModelServer:
    """A model server that is not a CHIPS backend. It has a kind, and says how to reach one model of the server."""

    kind: str
    path: str
    version: str = _FIRST_VERSION
    example: Any = None  # a request body to begin with; None where nothing is known of it
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    others: tuple[str, ...] = ()  # other paths that could be meant


class CachingProbe:
    """Fetches pages of one server and caches them. Each is fetched once; None where an answer is not usable."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._asked: dict[tuple[str, str], asyncio.Task[tuple[int, bytes]]] = {}

    async def json(self, path: str, method: str = "GET") -> Any:
        status, body = await self._ask(path, method)
        try:
            return msgspec.json.decode(body) if status == 200 else None
        except (ValueError, RecursionError):
            return None

    async def text(self, path: str) -> str | None:
        status, body = await self._ask(path, "GET")
        return body.decode("utf-8", "replace").strip() if status == 200 else None

    async def knows_path(self, path: str) -> bool:
        """Whether the server knows a path.

        It does where GET answers anything but 404, such as 405 for a path that takes POST only.
        """
        status, _ = await self._ask(path, "GET")
        return status not in {0, 404}

    async def discover_openapi(self) -> dict[str, Any]:
        """Find the server's OpenAPI document, at the paths where common frameworks serve it. Empty where there is none."""
        for path in ("/openapi.json", "/docs.json", "/api-description"):
            found = await self.json(path)
            if isinstance(found, dict) and isinstance(found.get("paths"), dict):
                return found
        return {}

    async def _ask(self, path: str, method: str) -> tuple[int, bytes]:
        key = (path, method)
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._fetch(path, method))
        return await self._asked[key]

    async def _fetch(self, path: str, method: str) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method, self._url + path, allow_redirects=False, json={} if method == "POST" else None
            ) as answer:
                return answer.status, await read_at_most(answer.content.iter_any(), LARGEST_ANSWER)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, b""


async def detect_model_server(
    url: str, name: str, headers: Mapping[str, str] | None = None
) -> ThirdPartyModelServer | None:
    """Detect the model server at `url`. The path of its model `name` is detected too; None where no known kind answers."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False, headers=headers
    ) as session:
        site = CachingProbe(session, url)
        for kind in _KINDS:
            found = await kind(site, name)
            if found is not None:
                return found
    return None


async def is_chips_backend(url: str, name: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether the server at `url` is a CHIPS backend. It is if its metadata names the model and its version."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False, headers=headers
    ) as session:
        for path in ("/v2/health/ready", f"/v2/models/{name}"):
            try:
                async with session.get(url + path, allow_redirects=False) as answer:
                    if "X-Chips-Model" in answer.headers:
                        return True
            except (aiohttp.ClientError, TimeoutError, OSError):
                continue
    return False


# -- kinds


async def _open_inference(site: CachingProbe, name: str) -> ThirdPartyModelServer | None:
    """MLServer, Triton, KServe and others by github.com/kserve/open-inference-protocol."""
    server = await site.json("/v2")
    metadata = await site.json(f"/v2/models/{name}")
    if not isinstance(metadata, dict) or "name" not in metadata:
        listed = await _models_of_v2(site)
        if not isinstance(server, dict) or "extensions" not in server or len(listed) != 1:
            return None
        name = listed[0]
        metadata = await site.json(f"/v2/models/{quote(name, safe='')}") or {}
    known = server.get("name", "") if isinstance(server, dict) else ""
    kind = {"mlserver": "MLServer", "triton": "Triton", "kserve": "KServe v2"}.get(
        str(known).lower(), "Open Inference Protocol v2"
    )
    inputs, outputs = _tensors(metadata.get("inputs")), _tensors(metadata.get("outputs"))
    example = {"inputs": [_tensor_example(tensor) for tensor in inputs]} if inputs else None
    return ThirdPartyModelServer(
        kind, f"/v2/models/{quote(name, safe='')}/infer", _version_of(metadata), example, inputs, outputs
    )


async def _models_of_v2(site: CachingProbe) -> list[str]:
    listed = await site.json("/v2/models") or await site.json("/v2/repository/index", "POST")
    entries = listed.get("models", []) if isinstance(listed, dict) else listed
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries or []]
    return [name for name in names if isinstance(name, str)]


async def _v1(site: CachingProbe, name: str) -> ThirdPartyModelServer | None:
    """KServe v1 and TensorFlow Serving: kserve.github.io, tensorflow.org/tfx/serving/api_rest."""
    model = await site.json(f"/v1/models/{name}")
    if not isinstance(model, dict):
        return None
    status = model.get("model_version_status")
    if isinstance(status, list):
        live = [
            str(s.get("version")) for s in status if isinstance(s, dict) and s.get("state") == "AVAILABLE"
        ]
        return ThirdPartyModelServer(
            "TensorFlow Serving", f"/v1/models/{name}:predict", _newest(live), _INSTANCES
        )
    if "ready" in model:
        return ThirdPartyModelServer("KServe v1", f"/v1/models/{name}:predict", example=_INSTANCES)
    return None


async def _openai(site: CachingProbe, name: str) -> ThirdPartyModelServer | None:
    """vLLM, TGI, llama.cpp, Ollama and others: platform.openai.com/docs/api-reference/models."""
    listed = await site.json("/v1/models")
    entries = listed.get("data") if isinstance(listed, dict) and listed.get("object") == "list" else None
    if not isinstance(entries, list):
        return None
    ids = [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]
    model = name if name in ids or not ids else ids[0]
    example = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return ThirdPartyModelServer(
        "OpenAI-compatible",
        "/v1/chat/completions",
        example=example,
        others=("/v1/completions", "/v1/embeddings"),
    )


async def _mlflow(site: CachingProbe, _: str) -> ThirdPartyModelServer | None:
    """mlflow.org/docs: /invocations, /ping, /version."""
    ping, version = await asyncio.gather(site.text("/ping"), site.text("/version"))
    if ping != "" or version is None or not _VERSION.fullmatch(version.strip('"')):
        return None
    return ThirdPartyModelServer(
        f"MLflow {version.strip(chr(34))}", "/invocations", example={"dataframe_records": [{"…": 0}]}
    )


async def _litserve(site: CachingProbe, _: str) -> ThirdPartyModelServer | None:
    """lightning.ai/docs/litserve: /info names the server's workers."""
    info = await site.json("/info")
    server = info.get("server") if isinstance(info, dict) else None
    if not isinstance(server, dict) or "workers_per_device" not in server:
        return None
    found = await _from_openapi(site, await site.discover_openapi(), "LitServe")
    path = found.path if found is not None else "/predict"
    body = found.example if found is not None else None
    return ThirdPartyModelServer("LitServe", path, example=body or {"input": 0})


async def _ray_serve(site: CachingProbe, name: str) -> ThirdPartyModelServer | None:
    """docs.ray.io/en/latest/serve: /-/routes gives the applications by prefix."""
    routes, health = await asyncio.gather(site.json("/-/routes"), site.text("/-/healthz"))
    if not isinstance(routes, dict) or health is None or "success" not in health:
        return None
    prefixes = [prefix for prefix in routes if isinstance(prefix, str) and prefix.startswith("/")]
    fitting = [prefix for prefix in prefixes if name in prefix] or prefixes or ["/"]
    return ThirdPartyModelServer(
        "Ray Serve", fitting[0], example=None, others=tuple(p for p in prefixes if p != fitting[0])
    )


async def _torchserve(site: CachingProbe, name: str) -> ThirdPartyModelServer | None:
    """pytorch.org/serve: /api-description is OpenAPI titled TorchServe."""
    described = await site.json("/api-description")
    info = described.get("info") if isinstance(described, dict) else None
    if not isinstance(info, dict) or "torchserve" not in str(info.get("title", "")).lower():
        return None
    return ThirdPartyModelServer("TorchServe", f"/predictions/{name}", example={"data": "…"})


async def _vetiver(site: CachingProbe, _: str) -> ThirdPartyModelServer | None:
    """vetiver.posit.co in Python and R: /metadata has the required packages of the pin."""
    metadata = await site.json("/metadata")
    if not isinstance(metadata, dict) or "required_pkgs" not in metadata:
        return None
    version = metadata.get("version")
    version = version[0] if isinstance(version, list) and version else version  # R boxes it
    named = str(version) if isinstance(version, str) and _NAME.fullmatch(version) else _FIRST_VERSION
    found = await _from_openapi(site, await site.discover_openapi(), "vetiver")
    return ThirdPartyModelServer("vetiver", "/predict", named, found.example if found is not None else None)


async def _bentoml(site: CachingProbe, _: str) -> ThirdPartyModelServer | None:
    """docs.bentoml.com: /livez and /readyz, and OpenAPI at /docs.json."""
    described = await site.json("/docs.json")
    if not isinstance(described, dict) or not isinstance(described.get("paths"), dict):
        return None
    return await _from_openapi(site, described, "BentoML" if "/readyz" in described["paths"] else "OpenAPI")


async def _plain_openapi(site: CachingProbe, _: str) -> ThirdPartyModelServer | None:
    """FastAPI, plumber and whatever else describes itself."""
    return await _from_openapi(site, await site.discover_openapi(), "OpenAPI")


async def _from_openapi(
    site: CachingProbe, document: Mapping[str, Any], kind: str
) -> ThirdPartyModelServer | None:
    posts = post_operations(document)
    if not posts:
        return None
    ranked = sorted(posts, key=lambda path: (_rank(path), path))
    info = document.get("info")
    title = str(info.get("title", "")) if isinstance(info, dict) else ""
    shown = f"{kind} ({title})" if kind == "OpenAPI" and title else kind
    example = request_body_example(document, posts[ranked[0]])
    base = await _base_path(site, document, ranked[0])
    return ThirdPartyModelServer(
        shown, base + ranked[0], example=example, others=tuple(base + p for p in ranked[1:6])
    )


async def _base_path(site: CachingProbe, document: Mapping[str, Any], path: str) -> str:
    """What stands before the document's paths (OpenAPI 3.1, section 4.8.5), where the server knows `path` only below it.

    Many documents name the address of a proxy there, which takes that part away.
    """
    for base in server_base_paths(document):
        if await site.knows_path(base + path) and not await site.knows_path(path):
            return base
    return ""


def _rank(path: str) -> int:
    last = path.rstrip("/").rpartition("/")[2].lower()
    return next((at for at, word in enumerate(_LIKELY) if word in last), len(_LIKELY))


_KINDS: Final[Sequence[Callable[[CachingProbe, str], Awaitable[ThirdPartyModelServer | None]]]] = (
    _open_inference, _v1, _openai, _torchserve, _mlflow, _litserve, _ray_serve, _vetiver, _bentoml, _plain_openapi,
)  # fmt: skip
_INSTANCES: Final = {"instances": [[0]]}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _version_of(metadata: Mapping[str, Any]) -> str:
    versions = metadata.get("versions")
    named = [str(v) for v in versions if _NAME.fullmatch(str(v))] if isinstance(versions, list) else []
    return _newest(named)


def _newest(versions: Sequence[str]) -> str:
    """The version that a server answers with where a request names none: the largest number, in whatever order they stand."""
    if versions and all(version.isdecimal() for version in versions):
        return max(versions, key=int)
    return versions[-1] if versions else _FIRST_VERSION


def _tensors(listed: Any) -> tuple[Tensor, ...]:
    """Those that have a name and a datatype; other servers leave out or null the rest."""
    return tuple(
        Tensor(
            name=entry["name"],
            datatype=entry["datatype"],
            shape=tuple(size for size in entry.get("shape") or () if isinstance(size, int)),
        )
        for entry in listed or ()
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("datatype"), str)
    )


def _tensor_example(tensor: Tensor) -> dict[str, Any]:
    shape = [1 if size < 1 else size for size in tensor.shape] or [1]
    count = 1
    for size in shape:
        count *= size
    value: Any = {"BYTES": "text", "BOOL": True}.get(tensor.datatype, 0)
    return {
        "name": tensor.name,
        "shape": shape,
        "datatype": tensor.datatype,
        "data": [value] * min(count, 64),
    }


def example_request_json(service: ThirdPartyModelServer) -> str:
    """The server's example request as JSON text. It is `{…}` where none is known."""
    return json.dumps(service.example, ensure_ascii=False) if service.example is not None else "{…}"

"""Stand-ins for Cloud Run, Cloud Build and Artifact Registry on this machine, enough of them for a whole deploy.

What a client sends is compared with Google's discovery documents: a field that the API does not have, or a word that it
does not know, is a 400, as it is in the cloud. A revision really runs: as a process with the container's environment.
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.free_ports import claim_free_port
from tests.deploy.enums import _schemas
from tests.patience import patience
from tests.probes import is_ready

READY_WITHIN_S = 60.0  # on a quiet machine


class Fault(Exception):
    def __init__(self, status: int, message: str, reason: str = "FAILED") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "message": message, "status": reason}}


class Cloud:
    """`faults` are answered, one after the other, to calls whose method and path hold their key."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        self.faults: dict[str, deque[Fault]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.builds: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}  # Artifact Registry: a tag's name to a digest
        self.build_outcomes: deque[str] = deque()  # SUCCESS where it is empty
        self.breaks = False  # revisions never become ready
        self._changing = asyncio.Lock()
        self._folder = folder
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloud")
        self._thread.start()
        self.address = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(patience(20))

    async def _start(self) -> str:
        app = web.Application(middlewares=[self._answer])
        run = "/v2/projects/{project}/locations/{region}"
        app.router.add_get(run + "/services/{name}", self._get_service)
        app.router.add_post(run + "/services", self._create_service)
        app.router.add_patch(run + "/services/{name}", self._update_service)
        app.router.add_get("/v1/projects/{project}/builds", self._list_builds)
        app.router.add_post("/v1/projects/{project}/builds", self._create_build)
        app.router.add_get("/v1/projects/{project}/builds/{id}", self._get_build)
        app.router.add_get("/v1/{tag:projects/.+/tags/.+}", self._get_tag)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def stop(self) -> None:
        for process, _ in self._processes.values():
            process.kill()
            process.wait()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(patience(20))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        self.calls.append(call)
        try:
            for key, faults in self.faults.items():
                if re.search(key, call) and faults:
                    raise faults.popleft()
            content = await handler(request)
        except Fault as fault:
            return web.json_response(fault.body, status=fault.status)
        return web.json_response(content)

    # -- Cloud Run

    async def _get_service(self, request: web.Request) -> Any:
        name = request.path.removeprefix("/v2/")
        if name not in self.services:
            raise Fault(404, f"Resource {name} not found", "NOT_FOUND")
        return self.services[name]

    async def _create_service(self, request: web.Request) -> Any:
        name = f"{request.path.removeprefix('/v2/')}/{request.query['serviceId']}"
        body = await request.json()
        async with self._changing:
            if name in self.services:
                raise Fault(409, "it exists already", "ALREADY_EXISTS")
            return await self._accept(name, body)

    async def _update_service(self, request: web.Request) -> Any:
        name = request.path.removeprefix("/v2/")
        body = await request.json()
        async with self._changing:
            if body.get("etag") != self.services[name]["etag"]:
                raise Fault(409, "the etag is stale", "ABORTED")
            return await self._accept(name, body)

    async def _accept(self, name: str, body: dict[str, Any]) -> Any:
        body = check(body, "run.v2", "GoogleCloudRunV2Service")
        percent = sum(target.get("percent", 0) for target in body.get("traffic", ()))
        if percent != 100:
            raise Fault(400, f"traffic adds up to {percent}", "INVALID_ARGUMENT")
        template = body["template"]
        revision = template["revision"]
        if not revision.startswith(name.rpartition("/")[2] + "-") or len(revision) > 63:
            raise Fault(
                400, f"the revision's name {revision} does not begin with the service's", "INVALID_ARGUMENT"
            )
        operation = {"name": name.rpartition("/services/")[0] + "/operations/1", "done": True}
        if revision not in self._processes:
            failure = await asyncio.to_thread(self._run, revision, template)
            if failure:
                return {**operation, "error": {"code": 9, "message": failure}}
        service = {
            **body,
            "name": name,
            "etag": f'"{len(self.calls)}"',
            "latestReadyRevision": f"{name}/revisions/{revision}",
            "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
            "uri": "https://service.example",
            "trafficStatuses": [
                {**target, "uri": self._uri(target["revision"])} for target in body.get("traffic", ())
            ],
        }
        self.services[name] = service
        kind = "type.googleapis.com/google.cloud.run.v2.Service"
        return {**operation, "response": {"@type": kind, **service}}

    def _uri(self, revision: str) -> str:
        return f"http://127.0.0.1:{self._processes[revision][1]}"

    def _run(self, revision: str, template: dict[str, Any]) -> str:
        """Run the container's command; return why it did not become ready, or nothing."""
        if self.breaks:
            return f"Revision '{revision}' is not ready: the container failed its start-up probe"
        container = template["containers"][0]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")}
        port = claim_free_port()
        log = self._folder / f"{revision}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "chips_backend"],
                env={**environ, **given, "PORT": str(port), "CHIPS_CACHE_DIR": str(self._folder / "cache")},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self._processes[revision] = (process, port)
        path = container["startupProbe"]["httpGet"]["path"]
        give_up_at = time.monotonic() + patience(READY_WITHIN_S)
        while process.poll() is None and time.monotonic() < give_up_at:
            if is_ready(f"http://127.0.0.1:{port}{path}"):
                return ""
            time.sleep(0.05)
        process.kill()
        process.wait()
        del self._processes[revision]
        return f"Revision '{revision}' is not ready: {log.read_text()[-500:]}"

    # -- Cloud Build and Artifact Registry

    async def _list_builds(self, request: web.Request) -> Any:
        tag = re.fullmatch(r'tags="(.+)"', request.query["filter"])
        assert tag is not None
        return {"builds": [build for build in self.builds.values() if tag[1] in build["tags"]]}

    async def _create_build(self, request: web.Request) -> Any:
        body = check(await request.json(), "cloudbuild.v1", "Build")
        number = f"build-{len(self.builds) + 1}"
        build = {**body, "id": number, "status": "WORKING", "logUrl": f"https://console.example/{number}"}
        self.builds[number] = build
        kind = "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata"
        return {"name": f"operations/{number}", "metadata": {"@type": kind, "build": build}}

    async def _get_build(self, request: web.Request) -> Any:
        build = self.builds[request.match_info["id"]]
        if build["status"] == "WORKING":
            build["status"] = self.build_outcomes.popleft() if self.build_outcomes else "SUCCESS"
        if build["status"] == "SUCCESS":
            image, _, tag = build["images"][0].rpartition(":")
            digest = "sha256:" + tag.ljust(64, "0")
            build["results"] = {"images": [{"name": image, "digest": digest}]}
            host, project, repository, package = image.split("/")
            location = host.removesuffix("-docker.pkg.dev")
            where = f"projects/{project}/locations/{location}/repositories/{repository}/packages/{package}"
            self.tags[f"{where}/tags/{tag}"] = f"{where}/versions/{digest}"
        return build

    async def _get_tag(self, request: web.Request) -> Any:
        name = request.match_info["tag"]
        if name not in self.tags:
            raise Fault(404, f"{name} was not found", "NOT_FOUND")
        return {"name": name, "version": self.tags[name]}


def check(value: dict[str, Any], api: str, schema: str, where: str = "") -> dict[str, Any]:
    """`value` with words where a client sent numbers. Raises Fault for a field or a word that the API does not know."""
    known = _schemas(api)[schema]["properties"]
    checked = {}
    for name, inner in value.items():
        if name not in known:
            raise Fault(400, f'Unknown name "{name}" at "{where}": Cannot find field.', "INVALID_ARGUMENT")
        checked[name] = _check_as(inner, known[name], api, f"{where}.{name}")
    return checked


def _check_as(value: Any, kind: dict[str, Any], api: str, where: str) -> Any:
    if "$ref" in kind:
        return check(value, api, kind["$ref"], where)
    if kind.get("type") == "array":
        return [_check_as(inner, kind["items"], api, where) for inner in value]
    if "enum" in kind:
        words = kind["enum"]
        if isinstance(value, int) and 0 <= value < len(words):
            return words[value]  # Google's REST clients send an enumeration's number
        if value not in words:
            raise Fault(400, f"Invalid value at {where}: {value}", "INVALID_ARGUMENT")
    return value

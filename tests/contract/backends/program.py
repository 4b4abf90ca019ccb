"""A backend as a program, written from the contract with the standard library; `BREAK` names a sentence to break.

BREAK=stop-code CHIPS_MODEL=wine CHIPS_VERSION=1 CHIPS_ARTIFACT=folder PORT=9001 python -m tests.contract.backends.program
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.contract.backends.broken import Whole
from tests.flow.scripted import Message, Peer, ScriptedBackend

BREAK = os.environ.get("BREAK", "")
KNOWN = {"MODEL", "VERSION", "ARTIFACT", "ARTIFACT_DIGEST", "CACHE_DIR", "CONCURRENCY", "MAX_BODY_BYTES"}
LARGE = 10_000


def log(message: str, **fields: Any) -> None:
    if BREAK == "log-text":
        print(message, flush=True)
        return
    entry = {"severity": "INFO", "message": message, "time": datetime.now(UTC).isoformat(), **fields}
    if BREAK == "log-severity":
        entry["severity"] = "chatty"
    print(json.dumps(entry), flush=True)


def settings() -> list[str]:
    problems = [
        f"{name} is not known"
        for name in os.environ
        if name.startswith("CHIPS_")
        and name.removeprefix("CHIPS_") not in KNOWN
        and BREAK != "unknown-setting"
    ]
    if BREAK == "digest-unknown" and "CHIPS_ARTIFACT_DIGEST" in os.environ:
        problems.append(f"CHIPS_ARTIFACT_DIGEST={os.environ['CHIPS_ARTIFACT_DIGEST']} is not known")
    if not os.environ.get("CHIPS_CONCURRENCY", "1").isdigit() and BREAK != "bad-setting":
        problems.append("CHIPS_CONCURRENCY is no number")
    if not {"CHIPS_ARTIFACT", "AIP_STORAGE_URI"} & set(os.environ):
        if BREAK == "missing-setting":
            signal.pause()
        problems.append("CHIPS_ARTIFACT is not set")
    return problems


def artifact() -> str:
    """What is wrong with the artifact."""
    address = os.environ.get("CHIPS_ARTIFACT") or os.environ["AIP_STORAGE_URI"]
    folder = fetched(address) if address.startswith("gs://") else Path(address)
    content = (folder / "manifest.json").read_bytes()
    manifest = json.loads(content)
    wanted_digest = os.environ.get("CHIPS_ARTIFACT_DIGEST", "")
    if (
        wanted_digest not in {"", f"sha256:{hashlib.sha256(content).hexdigest()}"}
        and BREAK != "digest-ignored"
    ):
        return f"it is not {wanted_digest}" if BREAK != "digest-nameless" else "it is another one"
    for file in manifest["files"]:
        path = folder / file["path"]
        if not path.exists():
            if BREAK == "missing-file":
                continue
            return f"{file['path']} is missing"
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"] and BREAK != "corrupt-file":
            return "a file" if BREAK == "nameless" else f"{file['path']} has another digest"
    sample = manifest["samples"][0]
    if BREAK == "wrong-sample":
        return ""
    wanted = [Whole._score(list(row.values())) for row in sample["request"]["instances"]]
    return "" if wanted == sample["response"]["predictions"] else "the first sample came out differently"


def fetched(address: str) -> Path:
    """The artifact of a bucket, in the cache; what is there already is not fetched again."""
    bucket, _, prefix = address.removeprefix("gs://").rstrip("/").partition("/")
    base = f"{os.environ['STORAGE_EMULATOR_HOST']}/{bucket}/{prefix}"
    folder = Path(os.environ["CHIPS_CACHE_DIR"])
    with urllib.request.urlopen(f"{base}/manifest.json", timeout=60) as answer:
        content = answer.read()
    (folder / "manifest.json").write_bytes(content)
    files = json.loads(content)["files"]
    total, done = sum(file["bytes"] for file in files), 0
    for file in files:
        target = folder / file["path"]
        draft = target if BREAK == "fetch-half" else target.with_suffix(".draft")
        if target.exists() and BREAK != "fetch-again":
            done += file["bytes"]
            continue
        with (
            urllib.request.urlopen(f"{base}/{file['path']}", timeout=60) as answer,
            draft.open("wb") as stream,
        ):
            while block := answer.read(1 << 17):
                stream.write(block)
                before, done = done * 10 // total, done + len(block)
                if (done * 10 // total > before or BREAK == "fetch-chatty") and BREAK != "fetch-silent":
                    log(f"fetched {done * 100 // total} %")
        draft.rename(target)
    return folder


class Program:
    def __init__(self) -> None:
        self.contract = Whole(parameters={"concurrency": int(os.environ.get("CHIPS_CONCURRENCY", "1"))})
        self.contract.body_limit_bytes = int(os.environ.get("CHIPS_MAX_BODY_BYTES", "32505856"))
        self.contract.not_ready = 5 if BREAK in {"early", ""} else 0
        self.stopping = asyncio.Event()
        self.under_way = 0
        self.large = 0
        self.vertex = {
            os.environ.get("AIP_PREDICT_ROUTE", "/predict"): "/predict",
            os.environ.get("AIP_HEALTH_ROUTE", "/v2/health/ready"): "/v2/health/ready",
        }

    async def __call__(self, request: Message, peer: Peer) -> None:
        self.under_way += 1
        try:
            await self._answer(request, peer)
        finally:
            self.under_way -= 1

    async def _answer(self, request: Message, peer: Peer) -> None:
        if self.contract.not_ready > 0 and request.target == "/predict" and BREAK != "early":
            await peer.answer(503, b"{}")
            return
        if len(request.body) > LARGE:
            self.large += 1
            if BREAK == "stop-cuts" and self.large > 1:
                await self.stopping.wait()
                os._exit(0)
        if BREAK != "no-vertex-routes" and request.target in self.vertex:
            request.first = request.first.replace(request.target, self.vertex[request.target])
        answer = self.contract.answer(request)
        self._log(request, answer.status)
        await peer.answer(answer.status, json.dumps(answer.content).encode(), answer.fields)

    def _log(self, request: Message, status: int) -> None:
        fields: dict[str, Any] = {
            "httpRequest": {"requestMethod": request.method, "requestUrl": request.target, "status": status},
            "request_id": request.get("X-Request-Id") or "made-up",
            "model": "iris" if BREAK == "log-model" else "wine",
            "version": "1",
            "timing": {},
        }
        if BREAK != "log-caller":
            fields["caller"] = request.get("X-Chips-Caller")
        if BREAK == "log-http":
            fields["httpRequest"] = "POST 200"
        if BREAK == "log-payload":
            fields["body"] = request.body.decode("latin-1")[:200]
        trace = self._trace(request)
        if trace is not None:
            fields["logging.googleapis.com/trace"], fields["logging.googleapis.com/spanId"] = trace
            fields["logging.googleapis.com/trace_sampled"] = BREAK != "log-sampled"
        if BREAK == "log-fields":
            del fields["timing"]
        if BREAK != "log-none":
            log(f"{request.method} {request.target} {status}", **fields)

    @staticmethod
    def _trace(request: Message) -> tuple[str, str] | None:
        given, cloud = request.get("traceparent"), request.get("X-Cloud-Trace-Context")
        if given and BREAK != "log-trace":
            _, trace, span, _ = given.split("-")
            return f"projects/p/traces/{trace}", "0" * 16 if BREAK == "log-span" else span
        if cloud and BREAK not in {"log-trace", "log-cloud-trace"}:
            trace, _, rest = cloud.partition("/")
            return f"projects/p/traces/{trace}", f"{int(rest.partition(';')[0]):016x}"
        return None


async def main() -> int:
    if problems := settings():
        print("\n".join(problems) if BREAK != "silent" else "no", file=sys.stderr)
        return 1 if BREAK == "code-1" else 78
    if wrong := artifact():
        log(f"cannot start: {wrong}")
        return 0 if BREAK == "artifact-code" else 66
    if BREAK == "alone":  # a lock in the cache that nobody waits for
        try:
            Path(os.environ["CHIPS_CACHE_DIR"]).mkdir(exist_ok=True)
            (Path(os.environ["CHIPS_CACHE_DIR"]) / "lock").touch(exist_ok=False)
        except FileExistsError:
            return 75
    program = Program()
    loop = asyncio.get_running_loop()
    if BREAK != "process-1" or os.getpid() != 1:
        loop.add_signal_handler(signal.SIGTERM, program.stopping.set)
    backend = ScriptedBackend(program)
    port = os.environ.get("PORT") or os.environ.get("AIP_HTTP_PORT", "0")
    await backend.start(0 if BREAK == "no-vertex" and "PORT" not in os.environ else int(port))
    log("listening")
    await program.stopping.wait()
    if BREAK == "stop-never":
        await asyncio.Event().wait()
    assert backend._server is not None
    backend._server.close()
    while program.under_way:
        await asyncio.sleep(0.01)
    await backend.stop()
    return 3 if BREAK == "stop-code" else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

# Long: one program with its load, its checks and its report.
"""Mixed load on a real gateway process, for as long as asked: `python -m tests.e2e.soak --minutes 10`.

Sizes, streams, chunks, tunnels, aborts, slow readers and senders, bad requests and backends that are restarted, all at
once. Each request carries a nonce that the backend echoes, so that an answer that is not the caller's own cannot go
unnoticed. At the end: flat memory; no connection, no request and no task left behind, as counted in the process itself.
"""

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.registry.base import KEYS, MODELS, Put
from gateway.registry.open_by_url import open_registry
from gateway.serve import serve
from tests.flow.scripted import Message, Peer, ScriptedBackend, read_message
from tests.patience import patience

WORKERS = 24
SERVE = "from tests.e2e.soak import observed; observed()"
BODY_WAIT_S = 5
PASSING = (
    "CallerConnection",
    "StrictRequestHandler",
    "Exchange",
    "Attempt",
    "CallerRequestBody",
    "ImmediateFuture",
)
ALLOWED = {
    "ok",
    "503 overloaded",
    "502 upstream-unreachable",
    "502 upstream-broken",
    "504 upstream-timeout",
    "cut",
}


async def echo_nonce(request: Message, peer: Peer) -> None:
    """Answer with the nonce and the digest of the body, in the manner that the caller asks for."""
    nonce = request.get("X-Nonce") or ""
    manner = request.get("X-Manner") or "length"
    size = int(request.get("X-Size") or "0")
    digest = hashlib.sha256(request.body).hexdigest()
    body = f"{nonce} {digest} ".encode() + b"x" * size
    if manner == "length":
        await peer.answer(200, body, [("X-Nonce", nonce)])
    elif manner == "chunks":
        await peer.write(
            f"HTTP/1.1 200 OK\r\nX-Nonce: {nonce}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for i in range(0, len(body), 3000):
            piece = body[i : i + 3000]
            await peer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.write(b"0\r\n\r\n")
    elif manner == "tunnel":
        await peer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + body
        )
        while piece := await peer.reader.read(65536):
            await peer.write(piece)
        peer.close()
    elif manner == "close":
        await peer.write(f"HTTP/1.1 200 OK\r\nX-Nonce: {nonce}\r\n\r\n".encode() + body)
        peer.close()
    elif manner == "die":
        await peer.write(
            f"HTTP/1.1 200 OK\r\nX-Nonce: {nonce}\r\nContent-Length: {len(body) + 9}\r\n\r\n".encode() + body
        )
        peer.abort()
    else:  # slow
        await asyncio.sleep(0.05)
        await peer.answer(200, body, [("X-Nonce", nonce)])


class Soak:
    def __init__(self, port: int, key: str, seed: int, *, tunnels: bool) -> None:
        self._port = port
        self._tunnels = tunnels
        self._key = key
        self._random = random.Random(seed)
        self._number = 0
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def work(self, until: float) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._connection(until)

    async def _connection(self, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for _ in range(self._random.randint(1, 20)):
                if time.monotonic() > until or not await self._request(reader, writer):
                    return
        finally:
            writer.transport.abort() if self._random.random() < 0.2 else writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        rnd = self._random
        self._number += 1
        nonce = f"n{self._number}-{rnd.getrandbits(64):x}"
        manner = rnd.choices(["length", "chunks", "close", "die", "slow"], [60, 20, 5, 3, 12])[0]
        body = rnd.randbytes(rnd.choice([0, 10, 1000, 1000, 70_000, 300_000]))
        size = rnd.choice([0, 100, 100, 5000, 200_000])
        head = (
            f"POST /soak HTTP/1.1\r\nHost: x\r\nX-Api-Key: {self._key}\r\nX-Nonce: {nonce}\r\nX-Manner: {manner}\r\nX-Size: {size}\r\n"
        ).encode()
        if rnd.random() < 0.3:
            pieces = [body[i : i + 9000] for i in range(0, len(body), 9000)]
            raw = head + b"Transfer-Encoding: chunked\r\n\r\n"
            raw += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            raw = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        what = rnd.random()
        if what < 0.03:  # leaves in the middle of its request
            writer.write(raw[: rnd.randrange(len(raw))])
            self.outcomes["left early"] += 1
            return False
        if what < 0.05:  # makes no sense
            writer.write(
                b"GET /soak HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
            )
            answer = await read_message(reader, request=False)
            self._note(answer.status == 400, f"nonsense was answered {answer.status}", "refused")
            return False
        if what < 0.051 and body:  # stops sending
            writer.write(raw[: -len(body)])
            answer = await read_message(reader, request=False)
            name = f"{answer.status} {answer.get('chips-error')}"
            # Where the backend was restarted meanwhile, that comes first.
            self._note(
                name in {"408 request-timeout", *ALLOWED}, f"half a body was answered {name}", "stopped"
            )
            return False
        if what < 0.06 and self._tunnels:
            return await self._tunnel(reader, writer, nonce)
        if what < 0.07:  # sends slowly
            for i in range(0, len(raw), 20_000):
                writer.write(raw[i : i + 20_000])
                await writer.drain()
                await asyncio.sleep(0.01)
        else:
            writer.write(raw)
        if 0.07 < what < 0.1:  # leaves while the backend works
            await asyncio.sleep(0)
            self.outcomes["left"] += 1
            return False
        await writer.drain()
        if what < 0.14:
            await asyncio.sleep(0.05)  # reads late
        answer = await read_message(reader, request=False)
        return self._judge(answer, nonce, body, size, manner)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, nonce: str) -> bool:
        writer.write(
            f"GET /soak/live HTTP/1.1\r\nHost: x\r\nX-Api-Key: {self._key}\r\nX-Nonce: {nonce}\r\nX-Manner: tunnel\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
        )
        answer = await read_message(reader, request=False)
        if answer.status != 101:
            return self._judge(answer, nonce, b"", 0, "length")
        expected = f"{nonce} {hashlib.sha256(b'').hexdigest()} ".encode()
        for said in (b"", nonce.encode() * 1000):
            writer.write(said)
            try:
                heard = await reader.readexactly(len(expected + said))
            except asyncio.IncompleteReadError:  # restarted
                self.outcomes["cut"] += 1
                return False
            self._note(heard == expected + said, f"{nonce} heard another's words", "tunnel")
            expected = b""
        return False

    def _judge(self, answer: Message, nonce: str, body: bytes, size: int, manner: str) -> bool:
        if not answer.complete:
            self.outcomes["cut"] += 1
            return False
        if answer.status != 200:
            name = f"{answer.status} {answer.get('chips-error')}"
            self._note(name in ALLOWED, f"unexpected {name}: {answer.body[:200]!r}", name)
            return (answer.get("Connection") or "").lower() != "close"
        expected = f"{nonce} {hashlib.sha256(body).hexdigest()} ".encode() + b"x" * size
        # A body that ends with its connection ends, to everybody, where a restart ended it.
        own = answer.body == expected or (manner == "close" and expected.startswith(answer.body))
        self._note(
            own and answer.get("X-Nonce") == nonce,
            f"{nonce} ({manner}) got {len(answer.body)} bytes of {answer.get('X-Nonce')}, not {len(expected)}",
            "ok",
        )
        return True

    def _note(self, good: bool, wrong: str, outcome: str) -> None:
        self.outcomes[outcome] += 1
        if not good:
            self.wrong.append(wrong)


async def restart(backend: ScriptedBackend, until: float) -> None:
    while time.monotonic() < until - 2:
        await asyncio.sleep(2)
        await backend.go_away()
        await asyncio.sleep(0.1)
        await backend.start()


async def soak(minutes: float, seed: int, path: str = "fast") -> int:
    with tempfile.TemporaryDirectory() as folder:
        registry = f"sqlite://{folder}/registry.db"
        key = make_key()
        backend = ScriptedBackend(echo_nonce)
        await backend.start()
        store = open_registry(registry)
        model = Model(
            name="soak",
            policy=Policy(timeout_s=10, pure=True),
            backends=(Backend(version="1", url=backend.url),),
            traffic={"1": 100},
        )
        await store.write(
            Put(kind=MODELS, name="soak", body=to_document(model), expected=0),
            Put(
                kind=KEYS,
                name=digest_key(key),
                body=to_document(Key(label="soak", models=("*",), created="2026-01-01T00:00:00Z")),
                expected=0,
            ),
            author="soak",
        )
        await store.close()
        flags = ["--server.host=127.0.0.1", "--server.port=0", "--server.workers=1", "--log.format=json"]
        flags += [f"--server.path={path}", f"--server.body_timeout_s={BODY_WAIT_S}"]
        flags += [f"--registry={registry}", f"--trace.store={folder}/store.db"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVE, *flags),
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        assert process.stdout is not None
        message = ""
        while (
            "listens on http://127.0.0.1:" not in message
        ):  # the plain path says first what it cannot promise
            message = json.loads(await process.stdout.readline())["message"]
        port = int(message.split("http://127.0.0.1:")[1].split()[0])
        faults: list[str] = []
        said: deque[str] = deque(maxlen=8)
        alive: asyncio.Queue[dict[str, int]] = asyncio.Queue()
        log = asyncio.create_task(_read_log(process.stdout, faults, alive, said, plain=path == "plain"))
        load = Soak(port, key, seed, tunnels=path == "fast")
        seconds = minutes * 60
        try:
            memory = [_rss_mb(process.pid)]
            began = time.monotonic()
            for share in (0.4, 0.6):  # what the first part needs, the second may not exceed by much
                until = time.monotonic() + seconds * share
                restarts = asyncio.create_task(restart(backend, until))
                await asyncio.gather(*(load.work(until) for _ in range(WORKERS)))
                await restarts
                memory.append(_rss_mb(process.pid))
            print(
                f"{sum(load.outcomes.values())} requests in {time.monotonic() - began:.0f} s: {dict(load.outcomes)}"
            )
            print("memory: {:.1f} MB, then {:.1f}, at the end {:.1f}".format(*memory))
            problems = load.wrong[:20] + faults[:20]
            if memory[2] > memory[1] * 1.25 + 8:
                problems.append(f"memory grew from {memory[1]:.1f} to {memory[2]:.1f} MB")
            left = await _left(process, alive, backend)
            if left:
                problems.append(f"left behind: {left}")
        finally:
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), patience(30))
            await log
            await backend.stop()
        if code:
            problems.append(f"the gateway ended with {code}; its last words: {list(said)}")
        print("\n".join(problems) or "every answer was its caller's own; nothing was left behind")
        return 1 if problems else 0


async def _left(
    process: asyncio.subprocess.Process, alive: "asyncio.Queue[dict[str, int]]", backend: ScriptedBackend
) -> dict[str, int]:
    """What is still there once nobody calls any more; nothing, soon enough, where nothing has been forgotten."""
    left: dict[str, int] = {}
    for _ in range(150):
        process.send_signal(signal.SIGUSR1)
        counts = await asyncio.wait_for(alive.get(), patience(30))
        left = {name: counts[name] for name in PASSING if counts.get(name)}
        left |= {
            name: n
            for name, n in counts.items()
            if name.startswith(("task request", "task connect", "task accept"))
        }
        if counts.get("Connection", 0) > len(backend._open):
            left["Connection"] = counts["Connection"] - len(backend._open)
        if not left:
            return {}
        await asyncio.sleep(0.2)
    return left


def observed() -> None:
    """The gateway; on SIGUSR1 it says what is alive in it."""

    def tell(*_: object) -> None:
        gc.collect()
        kinds = Counter(type(thing).__name__ for thing in gc.get_objects() if _ours(thing))
        kinds.update(f"task {task.get_name()}" for task in asyncio.all_tasks())
        os.write(1, json.dumps({"message": "alive", "alive": kinds}).encode() + b"\n")

    signal.signal(signal.SIGUSR1, tell)
    sys.exit(serve(sys.argv[1:]))


def _ours(thing: object) -> bool:
    return str(type(thing).__module__).startswith("gateway.")  # of some types it is no name


async def _read_log(
    stream: asyncio.StreamReader,
    faults: list[str],
    alive: "asyncio.Queue[dict[str, int]]",
    said: deque[str],
    *,
    plain: bool,
) -> None:
    async for line in stream:
        entry = json.loads(line)
        if "alive" in entry:
            alive.put_nowait(entry["alive"])
        elif "httpRequest" not in entry:
            said.append(f"{entry.get('time')} {entry.get('message')}")
        if plain and "never retrieved" in str(entry.get("message")):
            continue  # aiohttp's client forgets what its writer ran into where the backend is restarted
        if "stack" in entry or entry.get("error") == "internal-error":
            faults.append(f"the gateway logged: {entry.get('message')} {entry.get('stack', '')[-600:]}")


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="to see a run again")
    parser.add_argument("--path", choices=("fast", "plain"), default="fast")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    return asyncio.run(soak(given.minutes, seed, given.path))


if __name__ == "__main__":
    sys.exit(main())

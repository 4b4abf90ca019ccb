"""Every message of the corpus, on both paths, through one gateway.

What must hold of a request, whatever its case says: no byte of it reaches a backend as anything but what it is, and the
caller's next request gets its own answer, or the connection is closed. Of an answer: the caller gets what the backend
said, or an error, or half an answer that looks like half; and its next answer is its own.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest

from gateway.core.model import Policy
from tests.flow.corpus import Case, load
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer
from tests.patience import patience

REQUESTS = load("requests.txt")
ANSWERS = load("answers.txt")
AT_ONCE = 40
HIDDEN = b"POST /wine/hidden HTTP/1.1\r\nHost: chips\r\n%bContent-Length: 0\r\n\r\n"


def expand(raw: bytes, number: int, key: str) -> bytes:
    """The bytes of a request, with what stands in braces filled in."""
    key_line = b"X-Api-Key: " + key.encode() + b"\r\n"
    path = b"/wine/%d" % number
    hidden = HIDDEN % key_line
    parts = {
        b"{head}": b"POST %b HTTP/1.1\r\nHost: chips\r\n%b" % (path, key_line),
        b"{key}": key_line,
        b"{path}": path,
        b"{hidden}": hidden,
        b"{hiddenlength}": b"%d" % len(hidden),
        b"{hiddenlength+5}": b"%d" % (len(hidden) + 5),
        b"{hiddensize}": b"%x" % len(hidden),
    }
    for name, value in parts.items():
        raw = raw.replace(name, value)
    return re.sub(rb"\{([^{}]+)\*(\d+)\}", lambda found: found[1] * int(found[2]), raw, flags=re.DOTALL)


async def answer_or_none(read: Callable[[], object]) -> Message | None:
    """The next answer that is not interim; None where the connection ends."""
    try:
        while True:
            answer: Message = await read()  # type: ignore[misc]
            if answer.status >= 200:
                return answer
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def in_lots(cases: list[Case], play: Callable[[int, Case], object]) -> list[str]:
    """What went wrong in each case that went wrong."""
    wrong = []
    for first in range(0, len(cases), AT_ONCE):
        lot = list(enumerate(cases))[first : first + AT_ONCE]
        results = await asyncio.gather(*(play(number, case) for number, case in lot))  # type: ignore[call-overload]
        wrong += [f"{case.name}: {result}" for (_, case), result in zip(lot, results, strict=True) if result]
    return wrong


async def seen_as_sent(request: Message, peer: Peer) -> None:
    body = request.target.encode() + b" " + request.body
    await peer.answer(200, b"" if request.method == "HEAD" else body)


def ends(answer: Message) -> bool:
    """Whether the caller may send nothing more."""
    kept = (answer.get("Connection") or "").lower()
    return kept == "close" or (answer.first.startswith("HTTP/1.0") and kept != "keep-alive")


def is_refusal(answer: Message) -> bool:
    """What the gateway says to what is no request."""
    return answer.get("chips-error") in {"bad-request", "method-not-implemented", "version-not-supported"}


async def play_requests(scene: Scene) -> None:
    backend = await scene.model(script=seen_as_sent)
    hidden = HIDDEN % (b"X-Api-Key: " + scene.key.encode() + b"\r\n")

    async def play(number: int, case: Case) -> str:
        status, body = case.outcome(Scene.path)
        raw = expand(case.raw, number, scene.key)
        head_only = raw.startswith(b"HEAD")
        caller = await scene.caller()
        with contextlib.suppress(ConnectionError):
            await caller.send(raw + scene.request(target=f"/wine/next-{number}", body=b"next"))
        first = await answer_or_none(lambda: caller.answer(head_only=head_only))
        second = None if first is None or ends(first) else await answer_or_none(caller.answer)
        caller.leave()
        path = f"/{number}"
        whole = [seen for seen in backend.seen if seen.target.partition("?")[0] == path and seen.complete]
        if first is None or str(first.status) != status:
            return f"answered {first}, not {status}"
        own = (200, f"/next-{number} next".encode())
        if second is not None and (second.status, second.body) != own and not is_refusal(second):
            return f"the next answer was {second}"
        if body is None:
            return f"{whole} reached the backend" if whole else ""
        if [seen.body for seen in whole] != [body.replace(b"{hidden}", hidden)]:
            return f"the backend saw {whole}, not {body!r}"
        return ""

    wrong = await in_lots(REQUESTS, play)
    assert not wrong, "\n".join(wrong)
    assert not [seen for seen in backend.seen if seen.target == "/hidden"]
    assert {"POST", "GET"} < {seen.method for seen in backend.seen}
    await scene.still_good(backend)


@pytest.mark.path("fast", pytest.param("plain", marks=pytest.mark.slow))
async def test_requests():
    # One kind, on the plain path, is refused only when its body does not go on.
    async with Scene(**{"server.body_timeout_s": str(patience(3))}) as scene:
        await play_requests(scene)


async def test_answers(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        number = request.target[1:]
        if not number.isdigit():
            await peer.answer(200, request.target.encode())
            return
        case = ANSWERS[int(number)]
        await peer.write(case.raw)
        if case.closes:
            peer.close()

    # What is sent again where the backend has closed a kept connection: this is about other things.
    backend = await scene.model(script=script, policy=Policy(pure=True))

    async def play(number: int, case: Case) -> str:
        status, body = case.outcome(Scene.path)
        caller = await scene.caller()
        await caller.send(
            scene.request("HEAD" if case.name.startswith("HEAD") else "POST", f"/wine/{number}")
        )
        first = await answer_or_none(lambda: caller.answer(head_only=case.name.startswith("HEAD")))
        if status == "cut":
            caller.leave()
            return f"answered {first}, not cut" if first is not None and first.complete else ""
        if first is None or (str(first.status), first.complete) != (status, True):
            return f"answered {first}, not {status}"
        if body is not None and first.body != body:
            return f"the caller got {first.body!r}, not {body!r}"
        for _ in range(2):
            await caller.send(scene.request("GET", f"/wine/next-{number}"))
            answer = await answer_or_none(caller.answer)
            if answer is None:
                return ""
            if answer.body != f"/next-{number}".encode():
                return f"the next answer was {answer}"
        caller.leave()
        return ""

    wrong = await in_lots(ANSWERS, play)
    assert not wrong, "\n".join(wrong)
    await scene.still_good(backend)


@pytest.mark.parametrize("file", ["requests.txt", "answers.txt"])
@pytest.mark.path("fast")
def test_the_corpus_is_large_and_both_kinds_are_in_it(file: str):
    cases = load(file)
    assert len(cases) >= 150
    good = sum(case.outcome("fast")[0] == "200" for case in cases)
    assert 20 < good < len(cases) - 50

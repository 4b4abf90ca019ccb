"""Bad requests: each gets a clear refusal that leaves the gateway as it was."""

import pytest

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.core.model import Policy
from tests.flow.scene import Scene, assert_problem


async def test_unknown_model(scene: Scene):
    backend = await scene.model()
    assert_problem(await scene.call("POST", "/beer"), 404, "model-not-found")
    assert_problem(await scene.call("POST", "/v2/models/beer/infer"), 404, "model-not-found")
    assert_problem(await scene.call("POST", "/v2/models/wine/versions/9/infer"), 404, "model-not-found")
    await scene.still_good(backend)


async def test_disabled_model(scene: Scene):
    backend = await scene.model("wine")
    await scene.model("off", enabled=False)
    assert_problem(await scene.call("POST", "/off"), 404, "model-not-found")
    await scene.still_good(backend)


async def test_keys(scene: Scene):
    backend = await scene.model()
    other = await scene.make_key("fraud", "be*")
    expired = await scene.make_key("*", expires="2026-01-02T00:00:00Z")
    revoked = await scene.make_key("*")
    assert (await scene.call(key=revoked)).status == 200  # known and remembered; dead at once all the same
    await scene.revoke_key(revoked)

    answer = await scene.call(key=None)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.get("WWW-Authenticate") is not None
    mistyped = scene.key[:-1] + ("a" if scene.key[-1] != "a" else "b")
    for key in ("chips_short", mistyped, "", "x" * 5000, expired, revoked):
        fields = [("X-Api-Key", key)]
        problem = assert_problem(await scene.call(key=None, fields=fields), 401, "unauthenticated")
        assert not key or key not in str(problem)
    assert_problem(await scene.call(key=other), 403, "forbidden")
    assert_problem(
        await scene.call(fields=[("X-Api-Key", scene.key)]), 400, "bad-request"
    )  # two keys: which one would count?
    assert len(backend.seen) == 1
    await scene.still_good(backend)


async def test_an_unknown_key_is_not_asked_for_again_and_again(scene: Scene):
    from gateway.core.api_keys import make_key

    await scene.model()
    reads = []
    read = scene.registry.read

    async def counted(kind: str, name: str):
        reads.append(name)
        return await read(kind, name)

    scene.registry.read = counted  # type: ignore[method-assign]
    (authenticator,) = scene.gateway._chain._authenticators
    assert isinstance(authenticator, ApiKeyAuthenticator)
    now = authenticator._clock()
    authenticator._clock = lambda: now  # what is known to be missing stays so
    unknown = make_key()
    for _ in range(5):
        assert_problem(await scene.call(key=unknown), 401, "unauthenticated")
    assert len(reads) == 1


async def test_a_caller_outside_the_allowlist_learns_nothing():
    async with Scene(**{"edge.networks": "192.0.2.0/24"}) as scene:
        backend = await scene.model()
        for target in ("/wine", "/beer", "/", "/v2/models/wine/infer"):
            assert_problem(await scene.call("POST", target), 403, "address-not-allowed")
        # A header that nobody vouches for opens nothing.
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip"):
            assert_problem(await scene.call(fields=[(name, "192.0.2.7")]), 403, "address-not-allowed")
        assert backend.seen == []


async def test_behind_one_trusted_hop_the_rightmost_entry_counts():
    async with Scene(**{"edge.networks": "192.0.2.0/24", "edge.trusted_hops": "1"}) as scene:
        backend = await scene.model()
        answer = await scene.call(fields=[("X-Forwarded-For", "203.0.113.1, 192.0.2.7")])
        assert answer.status == 200
        assert backend.seen[0].get("X-Forwarded-For") == "203.0.113.1, 192.0.2.7, 127.0.0.1"
        for forged in ("192.0.2.7, 203.0.113.1", "192.0.2.7, garbage", ""):
            assert_problem(await scene.call(fields=[("X-Forwarded-For", forged)]), 403, "address-not-allowed")


async def test_wrong_methods(scene: Scene):
    backend = await scene.model()
    for method, target, allow in (
        ("DELETE", "/wine", "GET, HEAD, POST"),
        ("GET", "/v2/models/wine/infer", "POST"),
        ("POST", "/v2/models/wine", "GET, HEAD"),
        ("TRACE", "/wine/x", "DELETE, GET, HEAD, PATCH, POST, PUT"),
    ):
        answer = await scene.call(method, target, body=None)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.get("Allow") == allow
    assert backend.seen == []
    await scene.still_good(backend)


@pytest.mark.parametrize("size", [11, 1000, 300_000])
async def test_a_body_over_the_limit_declared_or_not(scene: Scene, size: int):
    backend = await scene.model(policy=Policy(body_limit_bytes=10))
    assert_problem(await scene.call(body=b"x" * size), 413, "payload-too-large")
    assert backend.seen == []
    caller = await scene.caller()
    await caller.send(
        b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n"
    )
    assert_problem(await caller.answer(), 413, "payload-too-large")
    assert backend.seen == []
    good = await scene.call(body=b"x" * 10)
    assert good.status == 200


PATH_TRICKS = [
    "//wine", "/wine//x", "/wine/../x", "/wine/./x", "/wine/%2e%2e/x", "/wine/.%2E/x", "/wine/..", "/wine/a%2fb",
    "/wine/a%5cb", "/wine/a%00", "/wine/%0d%0aX:1", "/wine/a\\b", "/wine/%zz", "/wine/%2", "/wine/{x}", "/wine/\x7f",
    "/../wine", "/%2e%2e/wine", "http://other.example/wine", "https://chips/wine", "http://chips@evil/wine",
    "http://chips.evil/wine", "wine", "*", "/wine/" + "a" * 8100, "/wine?x=\x01", "/wine?a#b",
]  # fmt: skip


@pytest.mark.parametrize("target", PATH_TRICKS)
async def test_path_tricks_never_reach_a_backend(scene: Scene, target: str):
    backend = await scene.model()
    caller = await scene.caller()
    raw = scene.request("POST", "@@", body=b"{}").replace(b"@@", target.encode("latin-1"), 1)
    await caller.send(raw)
    answer = await caller.answer()
    assert answer.status in {400, 404, 414}, (target, answer)
    assert_problem(answer, answer.status, answer.get("chips-error") or "")
    assert backend.seen == []
    await scene.still_good(backend)


async def test_the_absolute_form_with_our_own_host_is_a_path(scene: Scene):
    await scene.model()
    assert (await scene.call("POST", "http://chips/wine")).status == 200


async def test_connect_is_refused(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(
        f"CONNECT 127.0.0.1:{backend.port} HTTP/1.1\r\nHost: 127.0.0.1:{backend.port}\r\n\r\n".encode()
    )
    answer = await caller.answer()
    assert answer.status in {400, 405}
    assert backend.connections == 0
    await scene.still_good(backend)


WIRE_TRICKS = {
    "content-length and transfer-encoding": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a signed length": b"Content-Length: +3\r\n\r\nabc",
    "a huge length": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "a length that is none": b"Content-Length: 3x\r\n\r\nabc",
    "an unknown transfer-encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "obs-fold": b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": b"X-A : b\r\nContent-Length: 0\r\n\r\n",
    "a NUL": b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": b"X-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": b"X-A: b\nX-B: c\r\nContent-Length: 0\r\n\r\n",
    "two hosts": b"Host: other\r\nContent-Length: 0\r\n\r\n",
    "a field without a name": b": b\r\nContent-Length: 0\r\n\r\n",
    "a 100 kB header": b"X-A: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a thousand fields": b"X-A: b\r\n" * 1000 + b"Content-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("trick", WIRE_TRICKS)
async def test_what_two_programs_could_read_differently_is_refused(scene: Scene, trick: str):
    backend = await scene.model()
    caller = await scene.caller()
    head = b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
    await caller.send(head + WIRE_TRICKS[trick])
    answer = await caller.answer()
    assert answer.status in {400, 431}, answer
    assert_problem(answer, answer.status, answer.get("chips-error") or "")
    await caller.ended()  # and the connection is closed: nobody knows where the next request would begin
    assert backend.seen == []
    await scene.still_good(backend)


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\r\n" * 50 + b"nonsense\r\n\r\n"]
)
async def test_what_is_not_http(scene: Scene, raw: bytes):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(raw)
    caller.writer.write_eof()
    await caller.ended()
    await scene.still_good(backend)


async def test_a_bad_request_timeout(scene: Scene):
    backend = await scene.model()
    for value in ("0", "-5", "1.5", "soon", "9" * 30):
        assert_problem(await scene.call(fields=[("X-Request-Timeout", value)]), 400, "bad-request")
    assert backend.seen == []


async def test_every_refusal_is_logged_once_with_its_reason(scene: Scene):
    await scene.model()
    answer = await scene.call(key="chips_wrong")
    (line,) = scene.log_lines()
    assert line["request_id"] == answer.get("X-Request-Id")
    assert line["severity"] == "WARNING"
    assert line["error"] == "unauthenticated"
    assert line["httpRequest"]["status"] == 401
    assert line["logging.googleapis.com/trace"] == answer.get("X-Trace-Id")


async def test_a_key_does_what_its_verbs_say_and_no_more(scene: Scene):
    backend = await scene.model()
    reader = await scene.make_key("*", verbs=("metadata",))
    scorer = await scene.make_key("*", verbs=("score",))
    assert (await scene.call("GET", key=reader)).status == 200
    assert_problem(await scene.call(key=reader), 403, "forbidden")
    assert_problem(await scene.call("POST", "/v2/models/wine/infer", key=reader), 403, "forbidden")
    assert_problem(await scene.call("GET", key=scorer), 403, "forbidden")
    assert_problem(await scene.call("GET", "/v2/models/wine", key=scorer), 403, "forbidden")
    assert backend.seen == []
    assert (await scene.call(key=scorer)).status == 200

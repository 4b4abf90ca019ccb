"""Good requests: where they go, what the backend sees, what the caller gets."""

import asyncio

from gateway.core.model import Backend, Policy
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer


async def test_a_score_goes_to_the_predict_path_and_the_answer_comes_back_as_it_was(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(
            200, b'{"predictions": [1]}', [("Content-Type", "application/json"), ("X-Chips-Model", "wine@1")]
        )

    backend = await scene.model(script=script)
    answer = await scene.call(body=b'{"instances": [[1]]}')
    (seen,) = backend.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/predict", b'{"instances": [[1]]}')
    assert (answer.status, answer.body) == (200, b'{"predictions": [1]}')
    assert answer.get("X-Chips-Model") == "wine@1"
    assert answer.get("Content-Type") == "application/json"
    assert answer.get("X-Request-Id") == seen.get("X-Request-Id")
    assert answer.get("X-Trace-Id") == (seen.get("traceparent") or "").split("-")[1]


async def test_the_rest_of_the_path_and_the_query_go_below_the_backends_address(scene: Scene):
    backend = await scene.model()
    await scene.call("POST", "/wine/explain/row?depth=2&x=%20y")
    await scene.call("GET", "/wine/openapi.json")
    assert [(seen.method, seen.target) for seen in backend.seen] == [
        ("POST", "/explain/row?depth=2&x=%20y"),
        ("GET", "/openapi.json"),
    ]


async def test_a_backend_with_a_base_path_and_a_predict_path_of_its_own(scene: Scene):
    backend = await scene.model("base")
    await scene.put_model(
        scene_model("base", Backend(version="1", url=f"{backend.url}/api/v9", predict_path="/score"))
    )
    await scene.call("POST", "/base")
    await scene.call("POST", "/base/other")
    assert [seen.target for seen in backend.seen] == ["/api/v9/score", "/api/v9/other"]


def scene_model(name: str, *backends: Backend, **changes):
    from gateway.core.model import Model

    traffic = changes.pop("traffic", {backends[0].version: 100})
    return Model(name=name, backends=backends, traffic=traffic, **changes)


async def test_open_inference_requests_keep_their_path(scene: Scene):
    backend = await scene.model()
    for method, target in (
        ("POST", "/v2/models/wine/infer"),
        ("POST", "/v2/models/wine/versions/1/infer"),
        ("GET", "/v2/models/wine"),
        ("GET", "/v2/models/wine/ready"),
        ("GET", "/v2/models/wine/versions/1/ready"),
    ):
        answer = await scene.call(method, target)
        assert answer.status == 200, target
        assert (backend.seen[-1].method, backend.seen[-1].target) == (method, target)


async def test_an_asked_for_version_is_served_whatever_its_traffic(scene: Scene):
    first = await scene.model("wine")
    second = await scene.model("other")
    await scene.put_model(
        scene_model(
            "wine",
            Backend(version="1", url=first.url),
            Backend(version="2", url=second.url),
            traffic={"1": 100, "2": 0},
        )
    )
    for _ in range(5):
        await scene.call()
    await scene.call("POST", "/v2/models/wine/versions/2/infer")
    assert (len(first.seen), len(second.seen)) == (5, 1)


async def test_traffic_is_split(scene: Scene):
    first = await scene.model("wine")
    second = await scene.model("other")
    await scene.put_model(
        scene_model(
            "wine",
            Backend(version="1", url=first.url),
            Backend(version="2", url=second.url),
            traffic={"1": 50, "2": 50},
        )
    )
    caller = await scene.caller()
    for _ in range(200):
        await caller.send(scene.request())
        assert (await caller.answer()).status == 200
    assert len(first.seen) + len(second.seen) == 200
    assert 50 < len(first.seen) < 150  # fails by chance once in 10^12 runs


async def test_what_the_backend_is_told_about_the_caller(scene: Scene):
    backend = await scene.model()
    await scene.call(
        fields=[
            ("Accept", "application/json"),
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Chips-Caller", "root"),
            ("x_chips_caller", "root"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "vendor=1"),
            ("X-Request-Id", "order-66"),
            ("Connection", "keep-alive, X-Private"),
            ("X-Private", "1"),
            ("Authorization", "Bearer for-the-backend"),
            ("Cookie", "a=b"),
        ]
    )
    (seen,) = backend.seen
    assert seen.get("Accept") == "application/json"
    assert (
        seen.get("X-Forwarded-For") == "127.0.0.1"
    )  # no hop is trusted, so what the caller wrote is not believed
    assert seen.get("X-Forwarded-Host") == "chips"
    assert seen.get("X-Forwarded-Proto") == "http"
    assert seen.get("Host") == f"127.0.0.1:{backend.port}"
    caller = seen.get("X-Chips-Caller")
    assert caller is not None
    assert caller != "root"
    assert seen.get("x_chips_caller") is None
    version, trace, span, flags = (seen.get("traceparent") or "").split("-")
    assert (version, trace, flags) == ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01")
    assert span != "00f067aa0ba902b7"
    assert seen.get("tracestate") == "vendor=1"
    assert seen.get("X-Request-Id") == "order-66"
    assert seen.get("X-Private") is None
    assert seen.get("Authorization") == "Bearer for-the-backend"
    assert seen.get("Cookie") == "a=b"
    assert 0 < int(seen.get("X-Request-Timeout") or "0") <= 60_000


async def test_credentials_end_at_the_gateway(scene: Scene):
    backend = await scene.model()
    await scene.call()
    await scene.call(key=None, fields=[("Authorization", f"Bearer {scene.key}")])
    await scene.call(fields=[("Authorization", f"bearer {scene.key}")])
    assert len(backend.seen) == 3
    for seen in backend.seen:
        assert scene.key not in str(seen.fields)
    assert scene.key not in str(scene.log_lines())


async def test_a_public_model_needs_no_key_but_a_bad_key_is_still_refused(scene: Scene):
    await scene.model(policy=Policy(access="public"))
    assert (await scene.call(key=None)).status == 200
    assert (await scene.call()).status == 200
    assert (await scene.call(key="chips_wrong")).status == 401


async def test_a_backends_error_passes_through_untouched(scene: Scene):
    body = b'{"code": "malformed-json", "detail": "line 1"}'

    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(
            400, body, [("Content-Type", "application/problem+json"), ("chips-error", "forged")]
        )

    await scene.model(script=script)
    answer = await scene.call(body=b"{not json")
    assert (answer.status, answer.body) == (400, body)
    assert answer.get("Content-Type") == "application/problem+json"
    assert answer.get("chips-error") is None  # that header says that the gateway failed


async def test_a_large_body_streams_both_ways_bit_exact(scene: Scene):
    import random

    body = random.Random(7).randbytes(3_000_000)

    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, request.body)

    await scene.model(script=script)
    answer = await scene.call(body=body)
    assert answer.body == body


async def test_a_chunked_body_reaches_the_backend_whole(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(
        b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
    )
    assert (await caller.answer()).status == 200
    assert backend.seen[0].body == b"hello world"


async def test_an_answer_streams_as_it_arrives(scene: Scene):
    first_seen = asyncio.Event()

    async def script(request: Message, peer: Peer) -> None:
        await peer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await peer.write(b"9\r\ndata: 1\n\n\r\n")
        await first_seen.wait()
        await peer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    await caller.reader.readuntil(b"data: 1\n\n")
    first_seen.set()  # the second event is written only now
    await caller.reader.readuntil(b"data: 2\n\n")


async def test_many_requests_on_one_connection(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    for _ in range(20):
        await caller.send(scene.request())
        assert (await caller.answer()).status == 200
    assert len(backend.seen) == 20
    assert backend.connections == 1


async def test_head_has_the_length_and_no_body(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request("HEAD", "/wine/file"))
    answer = await caller.answer(head_only=True)
    assert (answer.status, answer.get("Content-Length")) == (200, "12")
    await caller.send(scene.request("HEAD", "/wine/file"))
    assert (await caller.answer(head_only=True)).status == 200


async def test_expect_100_continue_is_answered_before_the_body_is_sent(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    head = scene.request(body=b"", fields=[("Expect", "100-continue")]).replace(
        b"Content-Length: 0", b"Content-Length: 5"
    )
    await caller.send(head)
    assert (await caller.answer()).status == 100
    await caller.send(b"hello")
    assert (await caller.answer()).status == 200
    assert backend.seen[0].body == b"hello"
    assert backend.seen[0].get("Expect") is None


async def test_no_permission_is_asked_for_a_body_that_will_be_refused(scene: Scene):
    await scene.model()
    caller = await scene.caller()
    head = scene.request(body=b"", key="chips_wrong", fields=[("Expect", "100-continue")]).replace(
        b"Content-Length: 0", b"Content-Length: 5"
    )
    await caller.send(head)
    assert (await caller.answer()).status == 401

"""What backends are told of the gateway and of callers, and where the gateway does not go."""

import socket
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from gateway.core.exchange import Exchange
from gateway.core.model import Backend
from tests.flow.issuer import signer
from tests.flow.scene import Scene, assert_problem


@pytest.mark.parametrize("name", ["wine.run.app", "metadata.google.internal", "127.0.0.1", "localhost"])
async def test_in_the_cloud_no_backend_is_on_this_machine(name: str, monkeypatch: pytest.MonkeyPatch):
    """Also where a name that may be registered points here, now or only later."""
    async with Scene(**{"upstream.policy": "cloud"}) as scene:
        backend = await scene.model()
        resolve = socket.getaddrinfo

        def rebound(host, port, *rest, **more):
            return resolve("127.0.0.1" if host == name else host, port, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        await scene.model("there", backends=(Backend(version="1", url=f"http://{name}:{backend.port}"),))
        problem = assert_problem(await scene.call("POST", "/there"), 502, "upstream-unreachable")
        assert "127.0.0.1" not in str(problem)
        assert backend.connections == 0
        (line,) = [line for line in scene.log_lines() if line.get("error")]
        assert "127.0.0.1" in line["cause"] or name in line["cause"]


async def test_the_metadata_server_is_no_backend_anywhere():
    async with Scene() as scene:
        for number, host in enumerate(("169.254.169.254", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]")):
            await scene.model(f"m{number}", backends=(Backend(version="1", url=f"http://{host}"),))
            assert_problem(await scene.call("POST", f"/m{number}"), 502, "upstream-unreachable")


async def test_backends_can_check_who_the_gateway_says_is_calling(tmp_path: Path):
    files = []
    for key_id in ("new", "old"):
        file = tmp_path / key_id
        file.write_bytes(
            signer(key_id, "ES256").key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files.append(str(file))
    flags = {"upstream.sign_callers": "true", "upstream.signing_keys": ",".join(files)}
    async with Scene(**flags) as scene:
        backend = await scene.model()
        key = await scene.make_key("*")
        forged = [("X-Chips-Caller-Token", "forged")]
        assert (await scene.call(key=key, fields=forged)).status == 200
        assert (await scene.call(fields=forged)).status == 200
        answer = await scene.call("GET", "/-/jwks.json", key=None)
        keys = jwt.PyJWKSet.from_dict(answer.json())
        assert len(keys.keys) == 2
        assert not any("d" in key for key in answer.json()["keys"])
        for seen in backend.seen:
            token = seen.get("X-Chips-Caller-Token") or ""
            public = keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, public, algorithms=["ES256"], audience="wine", issuer="chips")
            assert claims["sub"] == seen.get("X-Chips-Caller")
            assert claims["exp"] - claims["iat"] == 300
        assert len({seen.get("X-Chips-Caller-Token") for seen in backend.seen}) == 2


async def test_without_being_asked_nothing_is_signed(scene: Scene):
    backend = await scene.model()
    await scene.call()
    assert backend.seen[0].get("X-Chips-Caller-Token") is None
    assert backend.seen[0].get("X-Serverless-Authorization") is None
    assert (await scene.call("GET", "/-/jwks.json", key=None)).json() == {"keys": []}


async def test_what_runs_behind_the_gateway_is_nobodys_business():
    async def talkative(request, peer):
        fields = [
            ("Server", "gunicorn/19"), ("Via", "1.1 10.0.0.5"), ("X-Powered-By", "PHP"), ("X-Served-By", "10.0.0.5"),
            ("Connection", "X-Internal"), ("X-Internal", "10.0.0.5"), ("Keep-Alive", "timeout=5"),
            ("RateLimit", '"x";r=0'), ("X-Kept", "yes"),
        ]  # fmt: skip
        await peer.answer(200, b"{}", fields)

    async with Scene() as scene:
        await scene.model(script=talkative)
        answer = await scene.call()
        assert answer.get("X-Kept") == "yes"
        assert answer.get("Server") == "chips"
        text = str(answer.fields)
        for secret in ("gunicorn", "10.0.0.5", "PHP", "X-Internal", "Keep-Alive", "RateLimit"):
            assert secret not in text


async def test_a_backend_is_told_who_the_gateway_is_in_a_token_for_its_own_audience():
    class Authentication:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str]] = []

        def cached_fields(self, url: str, audience: str = "") -> None:
            return None

        async def fetch_fields(self, url: str, audience: str = "") -> tuple[bytes, ...]:
            self.asked.append((url, audience))
            return (
                b"X-Serverless-Authorization: ",
                b"Bearer for " + (audience or "origin").encode(),
                b"\r\n",
            )

    async with Scene() as scene:
        proof = scene.gateway.upstream._identity = Authentication()  # type: ignore[attr-defined]
        backend = await scene.model()
        await scene.call(fields=[("X-Serverless-Authorization", "Bearer forged")])
        own = Backend(version="1", url=backend.url, audience="https://wine-abc.a.run.app")
        await scene.model("behind", backends=(own,))
        await scene.call("POST", "/behind")
        assert [seen.all("X-Serverless-Authorization") for seen in backend.seen] == [
            ["Bearer for origin"],
            ["Bearer for https://wine-abc.a.run.app"],
        ]
        assert proof.asked == [(backend.url, ""), (backend.url, own.audience)]


async def test_only_a_request_that_opens_a_connection_has_a_time_for_it():
    """A rollout leaves it out of what a version is judged by."""
    async with Scene() as scene:
        await scene.model("wine")
        seen: list[Exchange] = []
        scene.gateway._forward.set_observer(lambda exchange, _: seen.append(exchange))
        for _ in range(2):
            assert (await scene.call("POST", "/wine")).status == 200
        opened, kept = (exchange.attempts[-1] for exchange in seen)
        assert opened.answered is not None
        assert 0 < opened.opening_s < opened.answered - opened.began
        assert kept.opening_s == 0.0

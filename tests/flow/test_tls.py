"""Backends behind TLS: verified, resumed, and the handshake told apart from the connection in traces."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.core.model import Backend
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_store import RequestAndTickReader
from gateway.telemetry.spans_of_request import spans_of
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer, ScriptedBackend
from tests.patience import patience

LOOPS = ["asyncio", "uvloop"]


def certificate(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that vouches for itself and for `host`: what to trust, and what the backend shows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backends")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    ca, private = folder / "ca.pem", folder / "key.pem"
    ca.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(ca, private)
    return ca, shown


async def kept(store: Path, request_id: str | None) -> RecordedRequest:
    async with asyncio.timeout(patience(30)):
        while not (found := RequestAndTickReader(store).find(str(request_id))):
            await asyncio.sleep(0.01)
    return found[0]


def on(loop: str, play: Callable[[], object]) -> None:
    """Under the loop that serves, too: each has a TLS of its own."""
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(play())  # type: ignore[arg-type]


@pytest.mark.path("fast")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_connection_resumes_the_session_of_the_first(
    path: None, tmp_path: Path, loop: str, version: ssl.TLSVersion
):
    ca, shown = certificate(tmp_path, "127.0.0.1")
    shown.minimum_version = shown.maximum_version = version
    resumed: list[bool] = []

    async def close_after(request: Message, peer: Peer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await peer.answer(200, b"ok", [("Connection", "close")] if len(resumed) % 2 == 0 else [])

    async def play() -> None:
        store = tmp_path / "requests.db"
        async with Scene(**{"upstream.ca_file": str(ca), "trace.store": str(store)}) as scene:
            backend = ScriptedBackend(close_after, tls=shown)
            await backend.start()
            scene.backends.append(backend)
            await scene.model(backends=(Backend(version="1", url=backend.url),))
            answers = [await scene.call() for _ in range(5)]
            assert [answer.status for answer in answers] == [200] * 5
            # Two connections carried two requests each; the third was just opened.
            assert (backend.connections, resumed) == (3, [False, False, True, True, True])
            every = [
                [span.name for span in spans_of(await kept(store, answer.get("X-Request-Id")))]
                for answer in answers
            ]
            # What a busy machine made wait before the attempt is not looked at.
            names = [each[each.index("attempt 1") :] for each in every]
            cold = ["attempt 1", "connect", "TLS", "send", "wait", "receive"]
            warm = ["attempt 1", "send", "wait", "receive"]
            assert names == [cold, warm, cold, warm, cold]
            (attempt,) = (await kept(store, answers[0].get("X-Request-Id"))).attempts
            assert attempt.dialed is not None
            assert attempt.connected is not None
            assert attempt.began < attempt.dialed < attempt.connected

    on(loop, play)


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [
        ("127.0.0.1", False, "certificate verify failed"),
        ("192.0.2.1", True, "certificate is not valid for '127.0.0.1'"),
    ],
    ids=["an issuer that nobody trusts", "another host's certificate"],
)
async def test_a_backend_that_cannot_prove_who_it_is_gets_nothing(
    path: None, tmp_path: Path, host: str, trusted: bool, why: str
):
    ca, shown = certificate(tmp_path, host)
    store = tmp_path / "requests.db"
    flags = {"trace.store": str(store), **({"upstream.ca_file": str(ca)} if trusted else {})}
    async with Scene(**flags) as scene:
        backend = ScriptedBackend(tls=shown)
        await backend.start()
        scene.backends.append(backend)
        await scene.model(backends=(Backend(version="1", url=backend.url),))
        answer = await scene.call()
        assert_problem(answer, 502, "upstream-unreachable")
        assert b"certificate" not in answer.body
        assert backend.seen == []
        told = await kept(store, answer.get("X-Request-Id"))
        assert why in told.cause

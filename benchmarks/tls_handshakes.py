"""What a TLS handshake with a backend costs the gateway: full, and resumed from the last session.

In this process and without sockets, by the CPU time of the client's calls alone. `full` and `resumed` are medians.
"""

import argparse
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from gateway.upstream.backend_tls import SessionResumingContext, backend_tls_context

KEYS = {"RSA 2048": ["rsa:2048"], "ECDSA P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]}
VERSIONS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2}


class Handshake(NamedTuple):
    """One handshake: CPU seconds of the client's side, and whether the session was resumed."""

    client_s: float
    resumed: bool


def make_server(folder: Path, key: list[str]) -> ssl.SSLContext:
    """A server for `localhost`, with a certificate that signs itself (`cert.pem`)."""
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", *key]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server


def shake_hands(client_context: SessionResumingContext, server_context: ssl.SSLContext) -> Handshake:
    """Connect, take one answer, and remember its session in `client_context`."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    began = time.thread_time()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    spent = time.thread_time() - began
    done = {client: False, server: False}
    while not all(done.values()):
        for side in (client, server):
            began = time.thread_time()
            try:
                side.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                pass
            if side is client:
                spent += time.thread_time() - began
    server.write(b"answer")  # behind the tickets of TLS 1.3
    client.read()
    client_context.session = client.session
    return Handshake(spent, client.session_reused is True)


def measure(version: ssl.TLSVersion, key: list[str], rounds: int) -> tuple[float, float]:
    """CPU seconds of a full and of a resumed handshake."""
    with tempfile.TemporaryDirectory() as folder:
        server = make_server(Path(folder), key)
        context = backend_tls_context(f"{folder}/cert.pem")
    server.minimum_version = server.maximum_version = version
    full, resumed = [], []
    for _ in range(rounds):
        context.session = None
        full.append(shake_hands(context, server))
        resumed.append(shake_hands(context, server))
    if any(each.resumed for each in full) or not all(each.resumed for each in resumed):
        raise RuntimeError("a session was resumed where none was offered, or was not resumed")
    return median(each.client_s for each in full), median(each.client_s for each in resumed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls_handshakes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    print("| | full µs | resumed µs |\n|---|--:|--:|")
    for version_name, version in VERSIONS.items():
        for key_name, key in KEYS.items():
            full, resumed = measure(version, key, given.rounds)
            print(f"| {version_name}, {key_name} | {full * 1e6:.0f} | {resumed * 1e6:.0f} |")


if __name__ == "__main__":
    main()

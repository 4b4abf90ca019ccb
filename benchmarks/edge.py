"""What the edge costs per request: identify's address, allowlist, authenticate, authorize, on warm credentials.

And whether the time of a look-up says how much of a key was guessed: wrong keys that share none or nearly all of their
characters with a good one are looked up in turn, and the difference is told with its 99 % confidence interval.

python -m benchmarks.edge [--json]
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.auth.authenticator_chain import AuthenticatorChain
from gateway.auth.jwt import TokenAuthenticator
from gateway.core.api_key_document import Key
from gateway.core.api_keys import PREFIX, _checksum, digest_key, make_key
from gateway.core.direct_response import Response
from gateway.core.errors import Unauthenticated
from gateway.core.exchange import Exchange
from gateway.core.header_classification import classify_request_headers
from gateway.core.ip_network_set import NetworkSet, parse_address
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.core.request_target import parse_target
from gateway.core.token_and_certificate_rules import IssuerRule
from gateway.registry.base import KEYS, MODELS, Put
from gateway.registry.memory import MemoryRegistry
from gateway.registry.mirror import Mirror
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.gateway_ip_allowlist import GatewayIpAllowlist

ROUNDS, CALLS = 15, 20_000
SIZES = ("1 network", "10 networks", "10000 networks", "10000 networks of 17 sizes")
ENDS = ("lower", "upper")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    rows = asyncio.run(measure())
    if parser.parse_args().json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    for name, cost in rows.items():
        sys.stdout.write(f"{name:<70} {cost:8.3f} µs\n")
    together = rows["allowlist and API key together"]
    sys.stdout.write(f"\nallowlist and API key: {together:.2f} µs; the aim is 3 µs at most\n")
    few, many = (rows[f"allowlist of {size}, an address seen before"] for size in SIZES[::2])
    sys.stdout.write(f"10 000 networks cost {many - few:+.3f} µs more than one\n")
    low, high = (rows[f"guessed 31 of 32 characters, not 0: {end} end of the difference"] for end in ENDS)
    verdict = "no difference can be seen" if low <= 0 <= high else "there is a difference"
    sys.stdout.write(f"31 of 32 characters guessed: {low:+.4f} to {high:+.4f} µs against none; {verdict}\n")


async def measure() -> dict[str, float]:
    """Microseconds of CPU per call, medians."""
    rows: dict[str, float] = {}
    address = parse_address("192.0.2.7")
    assert address is not None
    for size, networks in zip(
        SIZES, (_networks(0), _networks(9), _networks(9_999), _mixed(9_999)), strict=True
    ):
        found = NetworkSet([*networks, IPv4Network("192.0.2.0/24")])
        rows[f"allowlist of {size}, an address seen before"] = cost(partial(_warm, found, address))
        rows[f"allowlist of {size}, an address never seen"] = cost(partial(_cold, found, address))
    registry, key = MemoryRegistry(), make_key()
    body = to_document(Key(label="bench", models=("wine",), created="2026-01-01T00:00:00Z"))
    model = Model(name="wine", backends=(Backend(version="1", url="http://127.0.0.1:9"),), traffic={"1": 100})
    await registry.write(
        Put(kind=KEYS, name=digest_key(key), body=body, expected=0),
        Put(kind=MODELS, name="wine", body=to_document(model), expected=0),
        author="bench",
    )
    mirror = Mirror(registry)
    await mirror.start()
    assert mirror.snapshot is not None
    admit = GatewayIpAllowlist(
        [*_networks(9_999), IPv4Network("192.0.2.0/24")],
        lambda: mirror.snapshot,
    )
    authorize = Authorize(body_limit_bytes=1 << 20)
    api_keys = ApiKeyAuthenticator(registry, mirror)
    keys = AuthenticatorChain([api_keys])
    exchange = _exchange(b"X-Api-Key", key.encode())
    exchange.address = exchange.head.address = address
    exchange.model, exchange.compiled_policy = model, mirror.snapshot.entries["wine"].compiled_policy
    await Authenticate(keys)(exchange)
    authenticate = Authenticate(keys)
    rows["API key, known"] = cost(lambda: authenticate.try_nowait(exchange))
    rows["authorize"] = cost(lambda: authorize(exchange))

    def both() -> None:
        admit(exchange)
        authenticate.try_nowait(exchange)

    rows["allowlist and API key together"] = cost(both)
    rows |= await _guess_rows(api_keys, key)
    rows |= await _token_rows()
    await mirror.stop()
    return rows


def _networks(size: int) -> list[IPv4Network]:
    """/24s of which no two are one /23."""
    return [IPv4Network((167772160 + n * 512, 24)) for n in range(size)]


def _mixed(size: int) -> list[IPv4Network]:
    """Of all sizes from /16 to /32, so that a first look-up has as many prefixes to try."""
    return [IPv4Network(((16 << 24) + (n << 16), 16 + n % 17)) for n in range(size)]


async def _guess_rows(keys: ApiKeyAuthenticator, good: str) -> dict[str, float]:
    """How long it takes to refuse a wrong key, by how much of it is right. In turn, so that drift hits all alike."""
    keys._missing_ttl_s = float("inf")
    rounds: dict[int, list[float]] = {0: [], 16: [], 31: []}
    calls = 500
    for _ in range(200):
        for length in random.sample(sorted(rounds), len(rounds)):
            right, wrong = good[len(PREFIX) :][:length], good[len(PREFIX) :][length:32]
            body = right + "".join("a" if character != "a" else "b" for character in wrong)
            head = _exchange(b"X-Api-Key", (PREFIX + body + _checksum(body)).encode()).head
            with contextlib.suppress(Unauthenticated):
                await keys(head)
            began = time.process_time()
            for _ in range(calls):
                keys.try_nowait(head)
            rounds[length].append((time.process_time() - began) / calls * 1e6)
    rows = {
        f"a wrong key, {length} of 32 characters guessed": statistics.median(times)
        for length, times in rounds.items()
    }
    # The median's interval by its neighbours in rank: what disturbs a few rounds does not move it.
    differences = sorted(late - early for early, late in zip(rounds[0], rounds[31], strict=True))
    reach = 2.58 * len(differences) ** 0.5 / 2
    for end, sign in zip(ENDS, (-1, 1), strict=True):
        rank = round((len(differences) - 1) / 2 + sign * reach)
        rows[f"guessed 31 of 32 characters, not 0: {end} end of the difference"] = differences[rank]
    return {name: round(value, 4) for name, value in rows.items()}


async def _token_rows() -> dict[str, float]:
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa

    from gateway.auth.jwks import PublicKey

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    tokens = TokenAuthenticator(
        [
            IssuerRule(
                name="acme", issuer=("https://i",), jwks="https://i/keys", audience=("us",), subjects=("*",)
            )
        ]
    )
    (known,) = tokens._keys.values()
    known.keys = {"k1": PublicKey("RS256", private.public_key())}
    known._fresh_until = float("inf")
    now = int(time.time())
    claims = {"iss": "https://i", "aud": "us", "sub": "ana", "iat": now, "exp": now + 3600}
    token = jwt.encode(claims, private, algorithm="RS256", headers={"kid": "k1"})
    await tokens.start()
    head = _exchange(b"Authorization", f"Bearer {token}".encode()).head
    tokens.try_nowait(head)
    warm = cost(lambda: tokens.try_nowait(head))

    def first() -> None:
        tokens._verified.__init__(10)  # type: ignore[misc]
        tokens.try_nowait(head)

    cold = cost(first, calls=300)
    await tokens.stop()
    return {"token, remembered": warm, "token, verified (RS256)": cold}


def _warm(networks: NetworkSet, address: Any) -> bool:
    return address in networks


def _cold(networks: NetworkSet, address: Any) -> bool:
    networks._known_4.clear()
    return address in networks


def cost(work: Callable[[], object], *, calls: int = CALLS) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            work()
        rounds.append((time.process_time() - began) / calls * 1e6)
    return round(statistics.median(rounds), 3)


class _Nothing:
    length = 100
    started = False

    async def send(self, answer: Response) -> None: ...


def _exchange(name: bytes, value: bytes) -> Exchange:
    nothing: Any = _Nothing()
    exchange = Exchange(
        method="POST",
        raw_target="/wine",
        headers=(),
        peer="192.0.2.7",
        scheme="http",
        body=nothing,
        response=nothing,
        arrived=0.0,
    )
    exchange.head = classify_request_headers([(b"Host", b"chips"), (name, value)])
    exchange.target = parse_target("/wine")
    return exchange


if __name__ == "__main__":
    main()

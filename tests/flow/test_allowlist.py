"""Who is admitted: by settings, by the registry while it runs, by the model, by the key; and trying a list out."""

from gateway.core.model import Policy
from gateway.registry.base import NETWORKS, Delete
from tests.flow.scene import Scene, assert_problem
from tests.patience import patience

BEHIND_ONE = {"edge.trusted_hops": "1"}


def told(address: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", address)]


async def test_a_network_is_admitted_and_dropped_while_the_gateway_runs():
    async with Scene(**BEHIND_ONE) as scene:
        await scene.model()
        assert_problem(await scene.call(fields=told("192.0.2.7")), 403, "address-not-allowed")
        await scene.admit("192.0.2.0/24", "2001:db8::/32")
        for address in ("192.0.2.7", "::ffff:192.0.2.7", "[2001:db8::7]:5", "192.0.2.7:61000"):
            assert (await scene.call(fields=told(address))).status == 200, address
        for address in ("192.0.3.7", "2001:db9::", "::192.0.2.7", "192.0.2.7x"):
            assert_problem(await scene.call(fields=told(address)), 403, "address-not-allowed")
        generation = await scene.registry.write(
            Delete(kind=NETWORKS, name="192.0.2.0_24", expected=1), author="test"
        )
        assert await scene.gateway.mirror.wait_for_generation(generation, timeout_s=patience(5))
        assert_problem(await scene.call(fields=told("192.0.2.7")), 403, "address-not-allowed")
        assert (await scene.call(fields=told("2001:db8::7"))).status == 200


async def test_a_network_that_cannot_be_read_admits_nobody():
    async with Scene(**BEHIND_ONE) as scene:
        await scene.model()
        await scene.admit("everybody", "192.0.2.0/24")
        assert_problem(await scene.call(fields=told("203.0.113.1")), 403, "address-not-allowed")
        assert (await scene.call(fields=told("192.0.2.7"))).status == 200
        assert (await scene.registry_state())["problems"] == 1
        await scene.model("another")  # a change elsewhere does not make the mistake be forgotten
        assert (await scene.registry_state())["problems"] == 1


async def test_a_model_and_a_key_may_ask_for_less():
    async with Scene(**BEHIND_ONE, **{"edge.networks": "192.0.2.0/24,198.51.100.0/24"}) as scene:
        backend = await scene.model(policy=Policy(networks=("192.0.2.0/25",)))
        await scene.model("open", policy=Policy(access="public"))
        key = await scene.make_key("*", networks=("192.0.2.0/28", "198.51.100.0/24"))
        for address, with_any, with_key in (
            ("192.0.2.7", 200, 200),
            ("192.0.2.100", 200, 403),
            ("192.0.2.200", 403, 403),
            ("198.51.100.7", 403, 403),
        ):
            assert (await scene.call(fields=told(address))).status == with_any, address
            assert (await scene.call(key=key, fields=told(address))).status == with_key, address
        assert_problem(
            await scene.call("GET", key=key, fields=told("198.51.100.7")), 403, "address-not-allowed"
        )
        # Also where no key is needed, a key that is shown is held to its networks.
        assert (await scene.call("POST", "/open", key=None, fields=told("192.0.2.100"))).status == 200
        assert_problem(
            await scene.call("POST", "/open", key=key, fields=told("192.0.2.100")), 403, "address-not-allowed"
        )
        # None of it widens the allowlist.
        assert_problem(await scene.call(key=key, fields=told("203.0.113.1")), 403, "address-not-allowed")
        assert len(backend.seen) == 3


async def test_a_trial_lets_pass_and_tells():
    flags = {"edge.networks": "192.0.2.0/24", "edge.report_only": "true", **BEHIND_ONE}
    async with Scene(**flags) as scene:
        await scene.model(policy=Policy(networks=("192.0.2.0/25",)))
        for address in ("192.0.2.7", "203.0.113.1", "192.0.2.200"):
            assert (await scene.call(fields=told(address))).status == 200
        assert_problem(await scene.call(key=None, fields=told("203.0.113.1")), 401, "unauthenticated")
        assert scene.gateway.gateway_ip_allowlist.refused == 2
        lines = [line for line in scene.log_lines() if "httpRequest" in line]
        assert [line.get("would_refuse") for line in lines] == [
            None,
            ["address-not-allowed"] * 2,  # by the allowlist, and by the model
            ["address-not-allowed"],
            ["address-not-allowed"],
        ]


async def test_a_way_in_that_lacks_the_expected_header_is_closed():
    async with Scene(**{"edge.networks": "127.0.0.0/8", "edge.trusted_hops": "2"}) as scene:
        await scene.model()
        assert_problem(await scene.call(), 403, "address-not-allowed")
        assert_problem(await scene.call(fields=told("127.0.0.1")), 403, "address-not-allowed")
        assert (await scene.call(fields=told("127.0.0.1, 10.0.0.1"))).status == 200


async def test_headers_of_trusted_proxies_are_read_and_of_no_one_else():
    flags = {"edge.networks": "192.0.2.0/24", "edge.trusted_proxies": "127.0.0.0/8"}
    async with Scene(**flags) as scene:
        backend = await scene.model()
        assert (await scene.call(fields=told("203.0.113.1, 192.0.2.7, 127.0.0.9"))).status == 200
        assert backend.seen[0].get("X-Forwarded-For") == "203.0.113.1, 192.0.2.7, 127.0.0.9, 127.0.0.1"
        assert_problem(await scene.call(fields=told("192.0.2.7, 203.0.113.1")), 403, "address-not-allowed")
    async with Scene(**{"edge.networks": "192.0.2.0/24", "edge.trusted_proxies": "10.0.0.0/8"}) as scene:
        await scene.model()
        assert_problem(await scene.call(fields=told("192.0.2.7")), 403, "address-not-allowed")


async def test_a_trial_covers_the_networks_of_keys_also_at_the_gateways_own_routes():
    flags = {"edge.networks": "192.0.2.0/24", "edge.report_only": "true", **BEHIND_ONE}
    async with Scene(**flags) as scene:
        await scene.model()
        key = await scene.make_key("*", networks=("192.0.2.0/28",), verbs=("score", "operate"))
        for address in ("192.0.2.7", "192.0.2.200"):
            assert (await scene.call(key=key, fields=told(address))).status == 200
            for path in ("/", "/-/models"):
                assert (await scene.call("GET", path, key=key, fields=told(address))).status == 200
        assert (
            scene.gateway.telemetry.metrics.live_state().counters["chips_edge_refusals_total"]["key-networks"]
            == 3
        )
        lines = [line for line in scene.log_lines() if "httpRequest" in line]
        assert [line.get("would_refuse") for line in lines] == [*[None] * 3, *[["address-not-allowed"]] * 3]

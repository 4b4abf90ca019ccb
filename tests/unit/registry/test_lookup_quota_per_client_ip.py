"""A ration for each address."""

from ipaddress import ip_address

from gateway.registry.lookup_quota_per_client_ip import _REMEMBERED, ClientLookupQuota


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_address_has_its_own_and_it_comes_back_with_time():
    clock = Clock()
    ration = ClientLookupQuota(per_second=2, clock=clock)
    one, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert [ration.take(one) for _ in range(21)] == [True] * 20 + [False]
    assert ration.take(other)
    clock.now = 1.0
    assert [ration.take(one) for _ in range(3)] == [True, True, False]
    assert ration.refused == 2


def test_what_was_well_spent_comes_back():
    ration = ClientLookupQuota(per_second=0.1, clock=Clock())
    for _ in range(5):
        assert ration.take(None)
        ration.give_back(None)
    assert ration.take(None)
    assert not ration.take(None)


def test_a_network_of_64_bits_is_one_caller():
    ration = ClientLookupQuota(per_second=0.1, clock=Clock())
    assert ration.take(ip_address("2001:db8::1"))
    assert not ration.take(ip_address("2001:db8::ffff:2"))
    assert ration.take(ip_address("2001:db8:0:1::1"))
    assert ration.take(ip_address("192.0.2.1"))
    assert not ration.take(ip_address("::ffff:192.0.2.1"))


def test_memory_is_bounded():
    ration = ClientLookupQuota(per_second=0.1, clock=Clock())
    for number in range(_REMEMBERED + 500):
        ration.take(ip_address(number))
    assert len(ration._left) == _REMEMBERED

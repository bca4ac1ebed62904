from __future__ import annotations

from ipaddress import ip_address

from relay.smtpd.elsewhere import SharedCounts, SharedMemory
from relay.smtpd.rates import WINDOW, Counted, Rates, client_key

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_events_are_counted_by_client_and_kind_in_windows() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [rates.count(Counted.MESSAGE, ONE) for _ in range(3)] == [1, 2, 3]
    assert rates.count(Counted.RECIPIENT, ONE) == 1
    assert rates.count(Counted.MESSAGE, OTHER) == 1
    clock.now += WINDOW - 1
    assert rates.count(Counted.MESSAGE, ONE) == 4
    clock.now += 1
    assert rates.count(Counted.MESSAGE, ONE) == 1


def test_what_is_over_is_forgotten() -> None:
    clock = Clock()
    rates = Rates(clock)
    for number in range(1000):
        rates.count(Counted.CONNECTION, ip_address(0xC0000200 + number))
        clock.now += WINDOW / 100
    assert len(rates) <= 201


def test_a_network_of_ipv6_addresses_is_one_client() -> None:
    assert client_key(ip_address("2001:db8::1")) == client_key(ip_address("2001:db8::fff:ffff:ffff")) == "2001:db8::/84"
    assert client_key(ip_address("2001:db8::1")) != client_key(ip_address("2001:db8::1:0:0:0"))
    assert client_key(ONE) != client_key(OTHER)


def test_workers_count_together() -> None:
    """Windows begin at other times: what is counted is never older than one."""
    clock, memory = Clock(), SharedMemory.made(2)
    one, two = (Rates(clock, SharedCounts(memory, worker)) for worker in range(2))
    assert [each.count(Counted.MESSAGE, ONE) for each in (one, two, one, two)] == [1, 2, 3, 4]
    assert two.count(Counted.RECIPIENT, ONE) == two.count(Counted.MESSAGE, OTHER) == 1
    clock.now += WINDOW - 1
    assert one.count(Counted.MESSAGE, ONE) == 5
    clock.now += 1
    assert one.count(Counted.MESSAGE, ONE) == 1, "both windows are over"
    assert two.count(Counted.MESSAGE, ONE) == 2
    memory.close()

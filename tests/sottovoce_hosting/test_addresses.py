"""Address blocks, what proxies say, and how many connections of one block come in."""

import ipaddress
import ssl
from collections.abc import Sequence

import pytest
import trio

from sottovoce_hosting.addresses import Addresses, Doors, Source, without_addresses
from sottovoce_hosting.rates import Rates

PROXIES = [ipaddress.ip_network(network) for network in ("10.0.0.0/8", "2001:db8:ffff::/48")]


def forwarded_for(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), *((b"X-Forwarded-For", value.encode()) for value in values)]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%1", "fe80::2%2", True),
        ("::192.0.2.1", "192.0.2.1", False),
    ],
)
def test_a_peer_is_one_address_of_ipv4_and_a_64_of_ipv6(one: str, other: str, together: bool) -> None:
    addresses = Addresses()
    assert (addresses.source_at(one) == addresses.source_at(other)) is together


def test_a_peer_says_nothing_of_its_address_and_means_nothing_to_another_process() -> None:
    one, other = (Addresses().source_at("192.0.2.1").peer for _ in range(2))
    assert one is not None
    assert len(one) == 8
    assert ipaddress.ip_address("192.0.2.1").packed not in one
    assert one != other


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""])
def test_this_machine_is_not_one_client(host: str) -> None:
    assert Addresses(PROXIES).source_at(host) == Source(None)


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:ffff::1"])
def test_a_trusted_proxy_is_not_one_client(host: str) -> None:
    assert Addresses(PROXIES).source_at(host) == Source(None, is_trusted_proxy=True)


def test_loopback_is_a_trusted_proxy_if_it_is_named_as_one() -> None:
    named = Addresses([ipaddress.ip_network("127.0.0.1/32")])
    assert named.source_at("127.0.0.1").is_trusted_proxy
    assert not named.source_at("127.0.0.2").is_trusted_proxy


@pytest.mark.parametrize(
    "values",
    [
        ["192.0.2.1"],
        ["198.51.100.7, 192.0.2.1"],
        ["192.0.2.1, 10.0.0.1"],
        ["192.0.2.1,2001:db8:ffff::5 ,10.0.0.1"],
        ["192.0.2.1", "10.0.0.1"],
        ["198.51.100.7", "192.0.2.1"],
        ["nonsense, 192.0.2.1"],
        ["::ffff:192.0.2.1"],
        ["10.9.9.9, 192.0.2.1, 10.0.0.1"],
    ],
)
def test_the_last_address_that_is_no_proxy_counts(values: Sequence[str]) -> None:
    addresses = Addresses(PROXIES)
    assert addresses.forwarded(forwarded_for(*values)) == addresses.source_at("192.0.2.1").peer


@pytest.mark.parametrize(
    "values", [[], [""], ["10.0.0.1"], ["nonsense"], ["192.0.2.1, nonsense"], ["192.0.2.1,"], ["192.0.2.1:80"], ["é"]]
)
def test_a_proxy_that_names_nobody_speaks_for_itself(values: Sequence[str]) -> None:
    assert Addresses(PROXIES).forwarded(forwarded_for(*values)) is None


def test_headers_with_addresses_are_left_out() -> None:
    headers = [(b"host", b"x"), (b"Forwarded", b"for=1"), (b"x-forwarded-for", b"1"), (b"X-Real-IP", b"1")]
    assert without_addresses(headers) == [(b"host", b"x")]


async def test_the_other_end_of_a_real_socket_is_found_through_tls_too() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    named = Addresses([ipaddress.ip_network("127.0.0.0/8")])
    port = listener.socket.getsockname()[1]
    async with listener, await trio.open_tcp_stream("127.0.0.1", port), await listener.accept() as stream:
        assert named.source_of(stream) == Source(None, is_trusted_proxy=True)
        tls = trio.SSLStream(stream, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), server_side=True)
        assert named.source_of(tls) == Source(None, is_trusted_proxy=True)


def test_so_many_of_one_block_come_in_and_another_when_one_has_left() -> None:
    doors = Doors(2, Rates(1, 100))
    assert [doors.enter(b"one") for _ in range(3)] == [True, True, False]
    assert doors.enter(b"other")
    doors.leave(b"one")
    assert [doors.enter(b"one") for _ in range(2)] == [True, False]


def test_they_come_in_no_faster_than_allowed() -> None:
    now = [0.0]
    doors = Doors(100, Rates(1, 2, clock=lambda: now[0]))
    assert [doors.enter(b"one") for _ in range(3)] == [True, True, False]
    for _ in range(2):
        doors.leave(b"one")
    assert not doors.enter(b"one")
    now[0] += 1
    assert doors.enter(b"one")


def test_who_is_not_one_client_comes_in_always() -> None:
    doors = Doors(1, Rates(1, 1))
    assert all(doors.enter(None) for _ in range(1000))


def test_nothing_is_kept_of_those_that_left() -> None:
    doors = Doors(1, Rates(1, 1))
    doors.enter(b"one")
    doors.leave(b"one")
    assert not doors._inside

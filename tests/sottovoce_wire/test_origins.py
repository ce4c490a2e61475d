"""An origin has one spelling, and nobody can point a client at a machine inside its own network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.origins import endpoint, may_connect, may_dial, parse_origin

CANONICAL = {
    "https://chat.example": "https://chat.example",
    "https://chat.example/": "https://chat.example",
    "HTTPS://Chat.Example": "https://chat.example",
    "https://chat.example:443": "https://chat.example",
    "https://chat.example:": "https://chat.example",
    "https://chat.example:8443": "https://chat.example:8443",
    "https://chat.example:08443": "https://chat.example:8443",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
    "https://10.0.0.7:8443": "https://10.0.0.7:8443",
    "https://[2001:DB8::1]": "https://[2001:db8::1]",
    "https://[2001:db8:0:0:0:0:0:1]": "https://[2001:db8::1]",
    "http://127.0.0.1:8480": "http://127.0.0.1:8480",
    "http://localhost:80": "http://localhost",
    "http://[::1]:8480": "http://[::1]:8480",
    "http://[0:0:0:0:0:0:0:1]:8480": "http://[::1]:8480",
}


@pytest.mark.parametrize(("text", "origin"), CANONICAL.items())
def test_an_origin_is_spelled_in_one_way(text: str, origin: str) -> None:
    assert parse_origin(text) == origin
    assert parse_origin(origin) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "chat.example",
        "//chat.example",
        "https:",
        "https://",
        "https:///",
        "https://:443",
        "ftp://chat.example",
        "wss://chat.example",
        "javascript:alert(1)",
        "https://user@chat.example",
        "https://user:secret@chat.example",
        "https://@chat.example",
        "https://chat.example/path",
        "https://chat.example//",
        "https://chat.example?query",
        "https://chat.example#fragment",
        "https://chat.example:0",
        "https://chat.example:65536",
        "https://chat.example:port",
        "https://chat.example:-1",
        "https://chat.example:+443",
        "https://[::1",
        "https://[::g]",
        " https://chat.example",
        "https://chat.example ",
        "https://chat.example\n",
        "https://chat\t.example",
        "https://chat\x00.example",
        "https://bücher.example",
        "https://chat。example",
        "https://" + "a" * 250 + ".example",
    ],
)
def test_what_does_not_name_a_server_alone_is_refused(text: str) -> None:
    with pytest.raises(WireError) as refused:
        parse_origin(text)
    assert refused.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "host",
    [
        "chat.example.",
        "chat..example",
        ".example",
        "-chat.example",
        "chat\\.example",
        "%63hat.example",
        "chat;x.example",
        "chat<x>.example",
        "[fe80::1%25eth0]",
        "127.1",
        "127.0.0.1.",
        "0x7f.1",
        "1.0x7f",
        "0177.0.0.1",
        "127.0.0.256",
    ],
)
def test_a_host_that_resolvers_read_in_several_ways_is_refused(host: str) -> None:
    with pytest.raises(WireError) as refused:
        parse_origin(f"https://{host}")
    assert refused.value.code is Code.BAD_REQUEST


@given(st.text(max_size=300) | st.text(st.sampled_from("htps:/@[]%?#.\\a1-"), max_size=40))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    for candidate in (text, "https://" + text):
        try:
            origin = parse_origin(candidate)
        except WireError:
            continue
        assert parse_origin(origin) == origin


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_plain_http_is_for_loopback(host: str) -> None:
    assert parse_origin(f"http://{host}:8480") == f"http://{host}:8480"


@pytest.mark.parametrize("host", ["chat.example", "10.0.0.7", "192.168.1.1", "169.254.1.1", "[fe80::1]", "[::]"])
def test_plain_http_to_anything_else_is_refused(host: str) -> None:
    with pytest.raises(WireError):
        parse_origin(f"http://{host}")


PUBLIC = ["https://chat.example", "https://9.9.9.9", "https://[2620:fe::fe]:8443"]
PRIVATE = [
    "https://localhost",
    "https://chat.localhost",
    "https://intranet",
    "https://127.0.0.1",
    "https://10.0.0.7",
    "https://172.16.0.1",
    "https://192.168.1.1:8443",
    "https://100.64.0.1",
    "https://169.254.169.254",
    "https://0.0.0.0",
    "https://[::1]",
    "https://[::]",
    "https://[fe80::1]",
    "https://[fd00::1]",
    "https://router.lan",
    "https://printer.local",
    "https://db.internal",
    "https://nas.home.arpa",
    "https://localhost.localdomain",
    "https://[64:ff9b::c0a8:1]",
    "https://[2002:c0a8:101::1]",
    "https://[fec0::1]",
    "https://[ff02::1]",
    "https://224.0.0.1",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:10.0.0.7]",
    "http://127.0.0.1:8480",
]


@pytest.mark.parametrize("target", PUBLIC)
@pytest.mark.parametrize("own", [PUBLIC[0], "http://127.0.0.1:8480"])
def test_a_public_server_may_always_be_dialled(target: str, own: str) -> None:
    assert may_dial(parse_origin(target), own=own)


@pytest.mark.parametrize("target", PRIVATE)
def test_a_client_of_a_public_server_is_not_led_inside_its_network(target: str) -> None:
    assert not may_dial(parse_origin(target), own="https://chat.example")


@pytest.mark.parametrize("target", PRIVATE)
def test_a_client_of_a_private_server_may_dial_private_ones(target: str) -> None:
    assert may_dial(parse_origin(target), own="http://127.0.0.1:8480")


@pytest.mark.parametrize(
    ("origin", "endpoint_of_it"),
    [
        ("https://chat.example", ("chat.example", 443, True)),
        ("https://chat.example:8443", ("chat.example", 8443, True)),
        ("http://127.0.0.1:8480", ("127.0.0.1", 8480, False)),
        ("http://[::1]", ("::1", 80, False)),
    ],
)
def test_an_endpoint_has_host_port_and_security(origin: str, endpoint_of_it: tuple[str, int, bool]) -> None:
    assert endpoint(origin) == endpoint_of_it


def test_a_public_name_that_leads_to_a_private_address_is_not_talked_to() -> None:
    own = "https://chat.example"
    assert may_connect("https://relay.example", "9.9.9.9", own=own)
    for address in ("127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1"):
        assert not may_connect("https://relay.example", address, own=own)
        assert may_connect(own, address, own=own)  # one's own server may be in one's own network
        assert may_connect("http://127.0.0.1:8480", address, own="http://127.0.0.1:8480")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a." * 127 + "example"])
def test_a_name_that_no_resolver_takes_is_refused(host: str) -> None:
    with pytest.raises(WireError):
        parse_origin(f"https://{host}")

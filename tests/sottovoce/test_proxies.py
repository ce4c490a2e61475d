"""What is said to a proxy, and what it may answer: whole, byte by byte, cut off at each length, with a tail."""

import base64
import traceback
from collections.abc import Callable

import pytest

from sottovoce import errors
from sottovoce.proxies import MAX_ANSWER, Proxy, parse_proxy

SOCKS = Proxy("socks5h", "127.0.0.1", 9050)
HTTP = Proxy("http", "127.0.0.1", 3128)
GRANTED = b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90"
GRANTED_WITH_NAME = b"\x05\x00\x05\x00\x00\x03\x05there\x1f\x90"
GRANTED_WITH_IPV6 = b"\x05\x00\x05\x00\x00\x04" + bytes(16) + b"\x1f\x90"
GRANTED_AFTER_A_NAME = b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90"
CONNECTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 somewhere\r\n\r\n"


class Conversation:
    """A proxy that answers these bytes, at most `step` at a time, whatever it is told."""

    def __init__(self, answers: bytes, step: int) -> None:
        self.heard = b""
        self.left = answers
        self._step = step

    async def read(self, most: int) -> bytes:
        taken = self.left[: min(most, self._step)]
        self.left = self.left[len(taken) :]
        return taken

    async def write(self, said: bytes) -> None:
        self.heard += said


async def converse(
    proxy: Proxy, answers: bytes, *, host: str = "relay.example", port: int = 443, step: int = 2**16
) -> Conversation:
    conversation = Conversation(answers, step)
    await proxy.lead_to(host, port, conversation.read, conversation.write)
    return conversation


@pytest.mark.parametrize("step", [1, 3, 2**16])
@pytest.mark.parametrize("answers", [GRANTED, GRANTED_WITH_NAME, GRANTED_WITH_IPV6, GRANTED_AFTER_A_NAME])
async def test_what_follows_socks_belongs_to_the_server(answers: bytes, step: int) -> None:
    assert (await converse(SOCKS, answers + b"the server's", step=step)).left == b"the server's"


@pytest.mark.parametrize("step", [1, 3, 2**16])
async def test_the_answer_to_connect_may_come_in_pieces(step: int) -> None:
    conversation = await converse(HTTP, CONNECTED, step=step)
    assert conversation.heard == b"CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n\r\n"
    assert conversation.left == b""


@pytest.mark.parametrize(
    ("proxy", "answers"),
    [(SOCKS, GRANTED), (SOCKS, GRANTED_WITH_NAME), (SOCKS, GRANTED_AFTER_A_NAME), (HTTP, CONNECTED)],
)
async def test_an_answer_cut_off_at_any_length_is_refused(proxy: Proxy, answers: bytes) -> None:
    for length in range(len(answers)):
        with pytest.raises(errors.ServerUnreachable):
            await converse(proxy, answers[:length])


@pytest.mark.parametrize(
    ("proxy", "answers"),
    [
        (SOCKS, b"\x04" + GRANTED[1:]),
        (SOCKS, b"\x05\xff" + GRANTED[2:]),
        (SOCKS, b"\x05\x01" + GRANTED[2:]),
        (SOCKS, GRANTED[:2] + b"\x04" + GRANTED[3:]),
        *((SOCKS, GRANTED[:3] + bytes([reply]) + GRANTED[4:]) for reply in (1, 2, 4, 5, 255)),
        (SOCKS, GRANTED[:5] + b"\x02" + GRANTED[6:]),
        (SOCKS, b"\x05\x02\x01\x01" + GRANTED[2:]),
        (HTTP, CONNECTED + b"not the server's"),
        (HTTP, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        (HTTP, b"HTTP/1.1 503 OK 200 \r\n\r\n"),
        (HTTP, b"SSH-2.0-somebody else\r\n\r\n"),
        (HTTP, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_ANSWER),
    ],
)
async def test_any_other_answer_is_refused(proxy: Proxy, answers: bytes) -> None:
    with pytest.raises(errors.ServerUnreachable, match="proxy"):
        await converse(proxy, answers)


async def test_an_answer_without_an_end_is_read_no_further_than_its_bound() -> None:
    conversation = Conversation(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_ANSWER, 100)
    with pytest.raises(errors.ServerUnreachable):
        await HTTP.lead_to("relay.example", 443, conversation.read, conversation.write)
    assert len(conversation.left) == 17 + 6 * MAX_ANSWER - MAX_ANSWER


@pytest.mark.parametrize(
    ("host", "spelled"),
    [
        ("relay.example", b"\x03\x0drelay.example"),
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
async def test_socks_is_told_names_as_names_and_addresses_as_addresses(host: str, spelled: bytes) -> None:
    heard = (await converse(SOCKS, GRANTED, host=host, port=8443)).heard
    assert heard == b"\x05\x02\x00\x02" + b"\x05\x01\x00" + spelled + b"\x20\xfb"


async def test_connect_brackets_an_address_with_colons() -> None:
    assert (await converse(HTTP, CONNECTED, host="2001:db8::1")).heard.startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1")


async def test_each_connection_names_itself_anew_so_that_tor_gives_it_a_circuit_of_its_own() -> None:
    first, second = [(await converse(SOCKS, GRANTED_AFTER_A_NAME)).heard[4:-20] for _ in range(2)]
    assert first[:2] == second[:2] == b"\x01\x10"
    assert first != second


async def test_a_name_and_a_password_that_were_given_are_said() -> None:
    proxy = parse_proxy("socks5h://me:p%40ss@127.0.0.1:9050")
    assert b"\x01\x02me\x04p@ss" in (await converse(proxy, GRANTED_AFTER_A_NAME)).heard
    proxy = parse_proxy("http://me:p%40ss@127.0.0.1:3128")
    assert b"Basic " + base64.b64encode(b"me:p@ss") + b"\r\n\r\n" in (await converse(proxy, CONNECTED)).heard


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("socks5h://127.0.0.1:9050", SOCKS),
        ("http://127.0.0.1:3128/", HTTP),
        ("SOCKS5H://Proxy.Example:1080", Proxy("socks5h", "proxy.example", 1080)),
        ("http://[::1]:8080", Proxy("http", "::1", 8080)),
    ],
)
def test_a_proxy_is_named_by_its_address(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:9050",
        "socks5://secret:secret@127.0.0.1:9050",
        "socks4a://127.0.0.1:9050",
        "https://secret:secret@127.0.0.1:8080",
        "socks5h://127.0.0.1",
        "socks5h://127.0.0.1:0",
        "socks5h://127.0.0.1:secret",
        "socks5h://:9050",
        "socks5h://secret@127.0.0.1:9050",
        "socks5h://:secret@127.0.0.1:9050",
        "socks5h://se%3Acret:secret@127.0.0.1:9050",
        f"socks5h://{'secret' * 50}:secret@127.0.0.1:9050",
        "http://127.0.0.1:8080/secret",
        "http://127.0.0.1:8080?secret",
        "http://127.0.0.1:8080#secret",
        "http://127.0.0.1:8080\r\nX-Secret: secret",
        "http://[secret:8080",
    ],
)
def test_anything_else_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        parse_proxy(text)
    assert "secret" not in caught.value.diagnostics()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "shown", [repr, str, lambda proxy: "".join(traceback.format_exception(errors.InvalidInput(str([proxy]))))]
)
def test_a_proxys_credentials_are_never_shown(shown: Callable[[Proxy], str]) -> None:
    assert "secret" not in shown(parse_proxy("socks5h://secret-name:secret-word@127.0.0.1:9050"))


def test_plain_http_goes_through_a_proxy_on_this_machine_alone() -> None:
    for host in ("127.0.0.1", "[::1]", "localhost"):
        parse_proxy(f"http://{host}:8080").check("http://127.0.0.1:8480")
    elsewhere = parse_proxy("socks5h://proxy.example:1080")
    elsewhere.check("https://relay.example")
    with pytest.raises(errors.ServerUnreachable, match="proxy elsewhere"):
        elsewhere.check("http://127.0.0.1:8480")

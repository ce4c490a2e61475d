"""What the SDK says when a server cannot be reached."""

from pathlib import Path

import pytest
import trio

from sottovoce import errors
from sottovoce.network import Internet, Link
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import start_server
from tests.certificates import self_signed


async def never(_link: Link) -> None:
    raise AssertionError


async def test_a_certificate_that_nobody_signed_is_named_as_the_reason(nursery: trio.Nursery, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    settings = HostingSettings(port=0, tls_cert=cert, tls_key=key, public_url="https://localhost")
    server = await start_server(nursery, lambda _: [], settings)
    origin = server.url.replace("127.0.0.1", "localhost")
    http = Internet().http(origin)
    with pytest.raises(errors.ServerUnreachable, match=r"certificate of https://localhost:.* is not trusted"):
        await http.request("GET", "/livez", b"", {})
    await http.aclose()
    with pytest.raises(
        errors.ServerUnreachable, match=r"certificate of https://localhost:.* is not trusted"
    ) as refused:
        await Internet().with_link(origin, origin, never)
    assert "public authorities" in refused.value.diagnostics()
    http = Internet().http(server.url.replace("https:", "http:"))
    with pytest.raises(errors.WrongServer) as wrong:
        await http.request("GET", "/livez", b"", {})
    await http.aclose()
    assert "try https://" in wrong.value.diagnostics()
    server.stop.set()


async def test_where_no_tls_is_spoken_it_says_so(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, lambda _: [])
    origin = server.url.replace("http:", "https:")
    http = Internet().http(origin)
    for attempt in (http.request("GET", "/livez", b"", {}), Internet().with_link(origin, origin, never)):
        with pytest.raises(errors.ServerUnreachable, match="does not speak TLS") as refused:
            await attempt
        assert "try http://" in refused.value.diagnostics()
    await http.aclose()
    server.stop.set()


async def test_where_nobody_listens_it_says_so() -> None:
    with pytest.raises(errors.ServerUnreachable, match="nothing answers"):
        await Internet().with_link("http://127.0.0.1:1", "http://127.0.0.1:1", never)

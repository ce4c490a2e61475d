"""Sockets and origins: which interfaces a server may listen on, and what it is called there."""

import resource
from pathlib import Path

import pytest

from sottovoce_hosting.binding import bind, raise_file_limit
from sottovoce_hosting.errors import StartError
from sottovoce_hosting.settings import HostingSettings
from tests.certificates import self_signed

ALL = "0.0.0.0"  # noqa: S104 - bound for an instant, to see that it may or may not be


async def test_a_free_port_is_found_and_named() -> None:
    [listener], address = await bind(HostingSettings(port=0))
    port = int(address.url.removeprefix("http://127.0.0.1:"))
    assert address.origins.accepted == (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://[::1]:{port}")
    await listener.aclose()


async def test_with_a_public_url_that_is_the_origin() -> None:
    [listener], address = await bind(HostingSettings(port=0, host=ALL, public_url="https://chat.example"))
    assert address.origins.accepted == ("https://chat.example",)
    await listener.aclose()


@pytest.mark.parametrize("host", [ALL, "::"])
async def test_without_a_public_url_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(StartError, match="is not a loopback address: set the public URL"):
        await bind(HostingSettings(port=0, host=host))


async def test_a_port_in_use_is_named() -> None:
    [listener], address = await bind(HostingSettings(port=0))
    port = int(address.url.rpartition(":")[2])
    with pytest.raises(StartError, match=f"127.0.0.1 port {port}: .*; a server may be running there"):
        await bind(HostingSettings(port=port))
    await listener.aclose()


async def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1 port"):
        await bind(HostingSettings(host="192.0.2.1", public_url="https://chat.example"))


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("missing.pem", "key.pem", "cannot read {0}/missing.pem: No such file or directory"),
        ("cert.pem", "missing.pem", "cannot read {0}/missing.pem: No such file or directory"),
        ("damaged.pem", "key.pem", "{0}/damaged.pem is not a certificate in PEM"),
        ("cert.pem", "damaged.pem", "{0}/damaged.pem is not a private key in PEM, or has a passphrase"),
        ("cert.pem", "other/key.pem", "{0}/other/key.pem is not the key of the certificate in {0}/cert.pem"),
    ],
)
async def test_which_file_of_a_certificate_is_at_fault_is_said(tmp_path: Path, cert: str, key: str, said: str) -> None:
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path / "other"):
        self_signed(folder)
    (tmp_path / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    settings = HostingSettings(tls_cert=tmp_path / cert, tls_key=tmp_path / key, public_url="https://chat.example")
    with pytest.raises(StartError) as refused:
        await bind(settings)
    assert str(refused.value) == said.format(tmp_path)


def test_the_limit_of_open_files_is_raised_and_connections_stay_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [256, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, chosen: limits.__setitem__(slice(None), list(chosen)))
    assert raise_file_limit(1000) == 1000
    assert limits == [1064, 4096]
    assert raise_file_limit(10_000) == 4032
    assert limits == [4096, 4096]


def test_too_few_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda _, __: None)
    with pytest.raises(StartError, match="raise the limit"):
        raise_file_limit(1000)

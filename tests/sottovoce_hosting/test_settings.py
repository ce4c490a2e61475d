"""Settings as data: their bounds, their canonical forms, and that they come from nowhere but what is handed over."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sottovoce_hosting.settings import HostingSettings


def test_the_environment_is_not_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_PORT", "1234")
    assert HostingSettings().port == 8480


@pytest.mark.parametrize("name", sorted(HostingSettings.model_fields))
def test_every_setting_says_what_it_means(name: str) -> None:
    assert HostingSettings.model_fields[name].description


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": 70_000}, "less than or equal to 65535"),
        ({"port": "x"}, "valid integer"),
        ({"public_url": "chat.example"}, "an address starts with https"),
        ({"public_url": "http://chat.example"}, "plain http goes to this machine only"),
        ({"public_url": "https://chat.example/path"}, "an address has no path"),
        ({"tls_cert": "cert.pem"}, "tls_cert and tls_key go together"),
        ({"tls_cert": "cert.pem", "tls_key": "key.pem"}, "public_url says which https address"),
        ({"log_level": "loud"}, "Input should be"),
        ({"drain_seconds": "inf"}, "finite number"),
        ({"stranger": 1}, "Extra inputs"),
        ({"metrics_host": "0.0.0.0"}, "for this machine only"),  # noqa: S104 - it is refused
        ({"metrics_host": "192.0.2.1"}, "for this machine only"),
        ({"metrics_host": "chat.example"}, "for this machine only"),
        ({"metrics_port": 8480}, "metrics_port must be another one than port"),
    ],
)
def test_a_bad_value_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HostingSettings(**given)


def test_a_data_folder_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert HostingSettings(data=Path("~/data")).data == tmp_path / "data"


def test_metrics_on_any_free_port_are_no_clash() -> None:
    assert HostingSettings(port=0, metrics_port=0).metrics_port == 0


def test_the_public_url_is_kept_in_its_canonical_spelling() -> None:
    assert HostingSettings(public_url="HTTPS://Chat.example:443/").public_url == "https://chat.example"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.8.0.1", "127.8.0.1"), ("localhost", "127.0.0.1")],
)
def test_metrics_are_for_loopback_addresses(given: str, kept: str) -> None:
    assert HostingSettings(metrics_host=given).metrics_host == kept


def test_proxies_in_one_text_are_split() -> None:
    given: Any = "10.0.0.0/8, 192.0.2.1"
    assert [str(network) for network in HostingSettings(trusted_proxies=given).trusted_proxies] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
    ]

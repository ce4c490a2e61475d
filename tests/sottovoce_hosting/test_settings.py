"""Settings: where they come from, and that a mistake is named."""

from pathlib import Path
from typing import Any

import pytest

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.settings import HostingSettings, read_settings


class Other(HostingSettings):
    """A server with a setting of its own."""

    other_number: int = 1


def test_what_is_given_comes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_PORT", "1234")
    monkeypatch.setenv("SOTTOVOCE_SERVER_DATA", "elsewhere")
    settings = read_settings(HostingSettings, port=99, data=None)
    assert (settings.port, settings.data, settings.host) == (99, Path("elsewhere"), "127.0.0.1")


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_PROT", "1234")
    with pytest.raises(StartError, match="SOTTOVOCE_SERVER_PROT: there is no such setting"):
        read_settings(HostingSettings)


def test_a_variable_of_the_other_server_in_the_process_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_OTHER_NUMBER", "7")
    assert read_settings(Other).other_number == 7
    assert read_settings(HostingSettings, (Other,)).port == 8480
    with pytest.raises(StartError, match="OTHER_NUMBER"):
        read_settings(HostingSettings)


def test_variables_of_the_client_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER", "https://chat.example")
    monkeypatch.setenv("SOTTOVOCE_STORE", "alice.db")
    read_settings(HostingSettings)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": 70_000}, "port: "),
        ({"port": "x"}, "port: "),
        ({"public_url": "chat.example"}, "public_url: an address starts with https"),
        ({"public_url": "http://chat.example"}, "public_url: plain http goes to this machine only"),
        ({"public_url": "https://chat.example/path"}, "public_url: an address has no path"),
        ({"tls_cert": "cert.pem"}, "tls_cert and tls_key go together"),
        ({"tls_cert": "cert.pem", "tls_key": "key.pem"}, "public_url says which https address"),
        ({"log_level": "loud"}, "log_level: "),
        ({"stranger": 1}, "stranger: "),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(given: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError) as caught:
        read_settings(HostingSettings, **given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_public_url_is_kept_in_its_canonical_spelling() -> None:
    assert read_settings(HostingSettings, public_url="HTTPS://Chat.example:443/").public_url == "https://chat.example"

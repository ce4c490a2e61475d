"""Where settings come from: options, environment, file, defaults; what is wrong is named; secrets are not."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr

from sottovoce_hosting.configuration import Configuration, read_configuration, shown
from sottovoce_hosting.errors import StartError
from sottovoce_hosting.settings import HostingSettings

SECRET = "a word that nobody may see"  # noqa: S105 - it is looked for in what is said


class Mailing(HostingSettings):
    """A server with a secret."""

    token: SecretStr | None = Field(default=None, min_length=10)


class Other(HostingSettings):
    """Another server of the process, with a setting of its own."""

    other_number: int = 1


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(*kinds: type[HostingSettings], config: Path | None = None, **options: Any) -> str:
    """What is said of a configuration that is wrong: one line."""
    with pytest.raises(StartError) as caught:
        read_configuration(kinds, config=config, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def token(configuration: Configuration) -> str | None:
    secret = configuration.of(Mailing).token
    return None if secret is None else secret.get_secret_value()


# --- Which comes first --------------------------------------------------------------------------------------


def test_options_come_before_the_environment_that_before_the_file_and_that_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, 'port = 1\nhost = "127.0.0.1"\ndata = "of the file"\nlog_level = "error"')
    monkeypatch.setenv("SOTTOVOCE_SERVER_PORT", "2")
    monkeypatch.setenv("SOTTOVOCE_SERVER_HOST", "127.0.0.2")
    read = read_configuration([HostingSettings], config=config, port=3, data=None)
    settings = read.of(HostingSettings)
    chosen = (settings.port, settings.host, settings.data, settings.log_level, settings.max_connections)
    assert chosen == (3, "127.0.0.2", Path("of the file"), "error", 10_000)
    sources = {name: value.source for name, value in read.given.items()}
    assert sources == {"port": "option", "host": "environment", "data": "file", "log_level": "file"}


def test_nothing_needs_to_be_given() -> None:
    read = read_configuration([HostingSettings])
    assert (read.settings, read.given, read.warnings) == ((HostingSettings(),), {}, ())


def test_a_variable_names_the_file_and_the_option_comes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.toml").write_text("port = 2")
    monkeypatch.setenv("SOTTOVOCE_SERVER_CONFIG", str(tmp_path / "other.toml"))
    assert read_configuration([HostingSettings]).of(HostingSettings).port == 2
    config = written(tmp_path, "port = 1")
    assert read_configuration([HostingSettings], config=config).of(HostingSettings).port == 1


def test_the_spelling_of_variables_has_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("sottovoce_server_Port", "5")
    assert read_configuration([HostingSettings]).of(HostingSettings).port == 5


def test_variables_of_the_client_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER", "https://chat.example")
    monkeypatch.setenv("SOTTOVOCE_STORE", "alice.db")
    assert read_configuration([HostingSettings]).given == {}


# --- What is unknown ----------------------------------------------------------------------------------------


def test_an_unknown_variable_is_refused_and_a_near_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_PROT", "1234")
    assert refusal(HostingSettings) == "SOTTOVOCE_SERVER_PROT: there is no such setting; is port meant?"


def test_an_unknown_key_of_the_file_is_refused_and_a_near_one_named(tmp_path: Path) -> None:
    config = written(tmp_path, "public-url = 'https://chat.example'")
    said = refusal(HostingSettings, config=config)
    assert said == f"{config}: public-url: there is no such setting; is public_url meant?"


def test_what_is_like_nothing_is_refused_without_a_guess(tmp_path: Path) -> None:
    config = written(tmp_path, "zzz = 1")
    assert refusal(HostingSettings, config=config) == f"{config}: zzz: there is no such setting"


def test_a_setting_of_the_other_server_in_the_process_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, f"other_number = 7\ntoken = '{SECRET}'")
    monkeypatch.setenv("SOTTOVOCE_SERVER_OTHER_NUMBER", "8")
    read = read_configuration([Mailing, Other], config=config)
    assert (token(read), read.of(Other).other_number) == (SECRET, 8)
    assert "OTHER_NUMBER: there is no such setting" in refusal(Mailing)


def test_only_a_secret_can_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    assert "host_file: there is no such setting" in refusal(
        HostingSettings, config=written(tmp_path, 'host_file = "x"')
    )


# --- What is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "port: Input should be less than"),
        ({"public_url": "chat.example"}, "public_url: an address starts with https"),
        ({"tls_cert": "cert.pem"}, "settings: tls_cert and tls_key go together"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(options: dict[str, Any], words: str) -> None:
    assert refusal(HostingSettings, **options).startswith(words)


def test_a_bad_variable_is_named_as_it_was_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_PORT", "x")
    assert refusal(HostingSettings).startswith("SOTTOVOCE_SERVER_PORT: Input should be a valid integer")


def test_a_bad_value_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, "port = [1]")
    assert refusal(HostingSettings, config=config).startswith(f"{config}: port: Input should be a valid integer")


@pytest.mark.parametrize(("text", "place"), [("port = 1\n= 2\n", "at line 2"), ("a = 1\nb = 2\na = 3\n", "at line 3")])
def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path, text: str, place: str) -> None:
    config = written(tmp_path, text)
    said = refusal(HostingSettings, config=config)
    assert said.startswith(f"{config}: this is not TOML: ")
    assert place in said


def test_a_file_nested_beyond_sense_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refusal(HostingSettings, config=written(tmp_path, "a = " + "[" * 50_000))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert refusal(HostingSettings, config=tmp_path) == f"cannot read {tmp_path}: Is a directory"
    missing = tmp_path / "missing.toml"
    assert refusal(HostingSettings, config=missing) == f"cannot read {missing}: No such file or directory"
    (tmp_path / "server.toml").write_bytes(b"\xff")
    assert "not text in UTF-8" in refusal(HostingSettings, config=tmp_path / "server.toml")


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    assert "too large" in refusal(HostingSettings, config=Path("/dev/zero"))


# --- Secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_its_file_without_the_end_of_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = secret_file(tmp_path, f" {SECRET} {ending}")
    config = written(tmp_path, f"token_file = '{path}'")
    assert token(read_configuration([Mailing], config=config)) == f" {SECRET} "
    monkeypatch.setenv("SOTTOVOCE_SERVER_TOKEN_FILE", str(path))
    read = read_configuration([Mailing])
    assert (token(read), read.given["token"].source, read.warnings) == (f" {SECRET} ", "environment", ())


def test_a_secret_given_twice_in_one_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, f"token_file = 'x'\ntoken = '{SECRET}'")
    assert "give one of them, not both" in refusal(Mailing, config=config)
    monkeypatch.setenv("SOTTOVOCE_SERVER_TOKEN_FILE", "x")
    monkeypatch.setenv("SOTTOVOCE_SERVER_TOKEN", SECRET)
    said = refusal(Mailing)
    assert said == "SOTTOVOCE_SERVER_TOKEN and SOTTOVOCE_SERVER_TOKEN_FILE: give one of them, not both"


def test_the_environment_comes_before_the_file_however_the_secret_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, f"token_file = '{secret_file(tmp_path, 'of the file')}'")
    monkeypatch.setenv("SOTTOVOCE_SERVER_TOKEN", SECRET)
    assert token(read_configuration([Mailing], config=config)) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_secret_that_others_may_read_is_warned_of(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, SECRET, mode)
    [warning] = read_configuration([Mailing], config=written(tmp_path, f"token_file = '{path}'", 0o644)).warnings
    assert str(path) in warning
    config = written(tmp_path, f"token = '{SECRET}'", mode)
    [warning] = read_configuration([Mailing], config=config).warnings
    assert str(config) in warning


def test_a_file_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    assert read_configuration([Mailing], config=written(tmp_path, "port = 1", 0o644)).warnings == ()


def test_a_secrets_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    config = written(tmp_path, "token_file = 'missing'")
    assert refusal(Mailing, config=config) == f"{config}: token_file: cannot read missing: No such file or directory"
    assert "this is not a path" in refusal(Mailing, config=written(tmp_path, "token_file = 1"))
    assert "too large for a secret" in refusal(Mailing, config=written(tmp_path, "token_file = '/dev/zero'"))


def test_no_error_and_no_repr_holds_a_secret(tmp_path: Path) -> None:
    short = SECRET[:9]
    for text in (f"'{short}'", f"['{SECRET}']", f"'{SECRET}", f"'{SECRET}'\nport = 'x'"):
        assert short not in refusal(Mailing, config=written(tmp_path, f"token = {text}"))
    config = written(tmp_path, f"token_file = '{secret_file(tmp_path, short)}'")
    assert short not in refusal(Mailing, config=config)
    read = read_configuration([Mailing], config=written(tmp_path, f"token = '{SECRET}'"))
    assert token(read) == SECRET
    assert SECRET not in repr(read)
    assert SECRET not in shown(read)


# --- What is shown ------------------------------------------------------------------------------------------


def test_what_is_shown_says_where_it_comes_from_and_is_a_file_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_DRAIN_SECONDS", "3")
    monkeypatch.setenv("SOTTOVOCE_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    config = written(tmp_path, f"token = '{SECRET}'")
    read = read_configuration([Mailing, Other], config=config, data='a "folder"\x7f\u00e9\\')
    text = shown(read)
    lines = text.splitlines()
    for line in (
        "port = 8480  # default",
        "drain_seconds = 3.0  # environment",
        'token = "***"  # file',
        "# public_url is not set  # default",
        "other_number = 1  # default",
    ):
        assert line in lines
    assert len(lines) == len(set(Mailing.model_fields) | set(Other.model_fields))
    for variable in [name for name in os.environ if name.startswith("SOTTOVOCE_SERVER_")]:
        monkeypatch.delenv(variable)
    again = read_configuration([HostingSettings, Other], config=written(tmp_path, text.replace('token = "***"', "")))
    assert again.of(Other) == read.of(Other)
    assert tomllib.loads(text)["data"] == 'a "folder"\x7f\u00e9\\'

"""Where settings come from: options of the command, then the environment, then a TOML file, then defaults.

Whatever is wrong there is one StartError that names the setting and the place. No secret is ever in a text made here.
"""

import difflib
import json
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from .errors import StartError
from .settings import ENVIRONMENT_PREFIX, HostingSettings

S = TypeVar("S", bound=HostingSettings)

#: The variable that names the file, where the option does not.
FILE_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}CONFIG"
#: Bytes; more is some other file.
_MAX_FILE: Final = 65_536
_MAX_SECRET: Final = 4_096
_SUFFIX: Final = "_file"


@dataclass(frozen=True)
class Given:
    """A value that somebody chose. `source` is option, environment or file; `place` names it in an error."""

    value: Any = field(repr=False)  # it may be a secret
    source: str
    place: str


@dataclass(frozen=True)
class Configuration:
    """What is in force: the settings of each server of the process, and the values that are not defaults, by name.

    `warnings` are lines for the person who runs the server.
    """

    settings: tuple[HostingSettings, ...]
    given: Mapping[str, Given]
    warnings: tuple[str, ...]

    def of(self, kind: type[S]) -> S:
        """The settings of this kind."""
        return next(settings for settings in self.settings if isinstance(settings, kind))


def read_configuration(
    kinds: Sequence[type[HostingSettings]], config: Path | None = None, **options: object
) -> Configuration:
    """Read the settings of all servers of a process. `config` is the file; an option that is None is not given.

    Raises StartError that names the first mistake: what no kind knows is one.
    """
    known = Known.of(kinds)
    warnings: list[str] = []
    layers = (
        _from_file(config or _file_in_environment(), known, warnings),
        _from_environment(kinds, known),
        _from_options(options),
    )
    given: dict[str, Given] = {}
    for layer in layers:
        given |= _open_secret_files(layer, known, warnings)
    return Configuration(tuple(_make(kind, given) for kind in kinds), given, tuple(warnings))


@dataclass(frozen=True)
class Known:
    """The names of all settings, and of those that are secrets."""

    names: frozenset[str]
    secrets: frozenset[str]

    @classmethod
    def of(cls, kinds: Sequence[type[HostingSettings]]) -> "Known":
        """Those of these kinds."""
        fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
        secrets = {name for name, field in fields.items() if is_secret(field.annotation)}
        return cls(frozenset(fields), frozenset(secrets))

    @property
    def keys(self) -> frozenset[str]:
        """What may stand in a file: the names, and those of files with secrets."""
        return self.names | {name + _SUFFIX for name in self.secrets}

    def refusal(self, place: str, key: str) -> StartError:
        """There is no such key; perhaps there is one much like it."""
        near = difflib.get_close_matches(key.lower(), sorted(self.keys), n=1, cutoff=0.7)
        return StartError(f"{place}: there is no such setting" + (f"; is {near[0]} meant?" if near else ""))


def is_secret(annotation: object) -> bool:
    """Whether a setting of this type is never shown."""
    return annotation is SecretStr or SecretStr in get_args(annotation)


# --- The three places ---------------------------------------------------------------------------------------


def _from_options(options: Mapping[str, object]) -> dict[str, Given]:
    return {name: Given(value, "option", name) for name, value in options.items() if value is not None}


def _from_environment(kinds: Sequence[type[HostingSettings]], known: Known) -> dict[str, Given]:
    variables = {
        variable.lower(): variable for variable in sorted(os.environ) if variable.upper().startswith(ENVIRONMENT_PREFIX)
    }
    for variable in variables.values():
        key = variable[len(ENVIRONMENT_PREFIX) :].lower()
        if key not in known.keys and variable.upper() != FILE_VARIABLE:
            raise known.refusal(variable, key)
    values = {name: value for kind in kinds for name, value in EnvSettingsSource(kind)().items()}
    lowered = {variable.lower(): value for variable, value in os.environ.items()}
    for name in known.secrets:
        if path := lowered.get(f"{ENVIRONMENT_PREFIX}{name}{_SUFFIX}".lower()):
            values[name + _SUFFIX] = path
    return {
        name: Given(value, "environment", variables[f"{ENVIRONMENT_PREFIX}{name}".lower()])
        for name, value in values.items()
    }


def _from_file(path: Path | None, known: Known, warnings: list[str]) -> dict[str, Given]:
    if path is None:
        return {}
    text, status = _read(path, _MAX_FILE, "too large for a configuration")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StartError(f"{path}: this is not TOML: {error}") from None
    except RecursionError:
        raise StartError(f"{path}: this is not TOML: it is nested too deeply") from None
    for key in values:
        if key not in known.keys:
            raise known.refusal(f"{path}: {key}", key)
    if known.secrets & values.keys() and _others_may_read(status):
        warnings.append(_warning(path))
    return {key: Given(value, "file", f"{path}: {key}") for key, value in values.items()}


def _file_in_environment() -> Path | None:
    named = next((value for variable, value in os.environ.items() if variable.upper() == FILE_VARIABLE), "")
    return Path(named) if named else None


def _read(path: Path, limit: int, too_large: str) -> tuple[str, os.stat_result]:
    """The text of a file of at most `limit` bytes, and what the system says of it. Raises StartError."""
    try:
        with path.open("rb") as opened:
            data, status = opened.read(limit + 1), os.fstat(opened.fileno())
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise StartError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not a path'}") from None
    if len(data) > limit:
        raise StartError(f"cannot read {path}: it is {too_large}")
    try:
        return data.decode(), status
    except UnicodeDecodeError:
        raise StartError(f"cannot read {path}: it is not text in UTF-8") from None


# --- Secrets ------------------------------------------------------------------------------------------------


def _open_secret_files(layer: Mapping[str, Given], known: Known, warnings: list[str]) -> dict[str, Given]:
    """The layer with each `name_file` replaced by what the file holds. Adds to `warnings`."""
    opened = dict(layer)
    for name in known.secrets:
        given = opened.pop(name + _SUFFIX, None)
        if given is None:
            continue
        if name in layer:
            raise StartError(f"{layer[name].place} and {given.place}: give one of them, not both")
        opened[name] = Given(_read_secret(given, warnings), given.source, given.place)
    return opened


def _read_secret(given: Given, warnings: list[str]) -> str:
    if not isinstance(given.value, str):
        raise StartError(f"{given.place}: this is not a path")
    path = Path(given.value)
    try:
        text, status = _read(path, _MAX_SECRET, "too large for a secret")
    except StartError as error:
        raise StartError(f"{given.place}: {error}") from None
    if _others_may_read(status):
        warnings.append(_warning(path))
    return text.removesuffix("\n").removesuffix("\r")


def _others_may_read(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _warning(path: Path) -> str:
    return f"warning: {path} holds a secret and others than its owner may read it: chmod 600"


# --- Checking and showing -----------------------------------------------------------------------------------


def _make(kind: type[S], given: Mapping[str, Given]) -> S:
    """The settings of one server. Raises StartError for the first that is wrong."""
    try:
        return kind(**{name: value.value for name, value in given.items() if name in kind.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        place = given[name].place if name in given else name
        raise StartError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def shown(configuration: Configuration) -> str:
    """What is in force as TOML, a line for each setting, with where its value comes from. Secrets are `***`."""
    values: dict[str, Any] = {}
    for settings in configuration.settings:
        values |= settings.model_dump(mode="json")
    secrets = Known.of([type(settings) for settings in configuration.settings]).secrets
    lines = []
    for name, value in values.items():
        source = configuration.given[name].source if name in configuration.given else "default"
        spelled = f"# {name} is not set" if value is None else f"{name} = {_toml('***' if name in secrets else value)}"
        lines.append(f"{spelled}  # {source}\n")
    return "".join(lines)


def _toml(value: object) -> str:
    """A string, number, boolean or list: JSON's spelling is TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

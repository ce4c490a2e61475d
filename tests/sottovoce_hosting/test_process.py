"""What a process says when it cannot go on: one line, with the reason that a person can do something about."""

from pathlib import Path

import pytest

from sottovoce_hosting.database import DatabaseError
from sottovoce_hosting.errors import StartError
from sottovoce_hosting.lockfile import LockHeld
from sottovoce_hosting.process import _printable, reason


def raised(error: Exception) -> Exception:
    """The error as one that was raised somewhere."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize("kind", [StartError, DatabaseError, LockHeld])
def test_a_known_error_is_said_in_its_own_words(kind: type[Exception]) -> None:
    assert reason(kind("do this")) == "do this"


def test_a_known_error_is_found_in_groups() -> None:
    inner = ExceptionGroup("inner", [ValueError("bytes"), LockHeld("stop the other first")])
    assert reason(ExceptionGroup("outer", [KeyError("x"), inner])) == "stop the other first"


def test_a_file_that_cannot_be_used_is_named() -> None:
    assert reason(PermissionError(13, "Permission denied", "data")) == "cannot use data: Permission denied"


def test_any_other_error_is_named_by_type_and_place_without_its_words() -> None:
    said = reason(ExceptionGroup("group", [raised(ValueError("secret bytes"))]))
    assert said.startswith("internal error: ValueError at ")
    assert "test_process:" in said
    assert "secret" not in said


def test_a_folder_whose_name_no_terminal_can_show_is_still_one_line() -> None:
    assert _printable(Path("/data\n\udcff/ä")) == "/data??/ä"

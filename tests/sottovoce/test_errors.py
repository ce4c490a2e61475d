"""What an error tells whoever meets it, in a traceback and in one line."""

import traceback

from sottovoce import errors


def printed(error: errors.SottovoceError) -> str:
    return "".join(traceback.format_exception(error))


def test_a_traceback_says_once_what_to_do() -> None:
    assert printed(errors.NameTaken("alice is taken")).count("choose another name") == 1
    assert printed(errors.NameTaken("alice is taken", hint="ask her")).endswith("alice is taken\nask her\n")


def test_where_there_is_nothing_to_do_nothing_is_added() -> None:
    assert printed(errors.TimedOut("not yet")).endswith("TimedOut: not yet\n")


def test_one_line_says_what_happened_and_what_to_do() -> None:
    assert errors.NameTaken("alice is taken").diagnostics() == "alice is taken: choose another name"

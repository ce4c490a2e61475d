"""Logs: one JSON object a line, nothing from the words of libraries."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from sottovoce_hosting.logs import configure, log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = logging.root.handlers[:]
    yield
    structlog.reset_defaults()
    logging.basicConfig(level=logging.WARNING, handlers=before, force=True)


def test_a_line_is_json_with_its_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log.info("a connection failed", error="ValueError")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["error"]) == ("a connection failed", "info", "ValueError")
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    log.info("a connection failed")
    assert capsys.readouterr() == ("", "")


def test_of_a_library_only_its_name_and_the_error_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    try:
        raise ValueError("bytes from the network")
    except ValueError:
        logging.getLogger("some.package").exception("request %s failed", "/v1/alice")
    logging.getLogger("some.package").info("nothing")
    line = json.loads(capsys.readouterr().err)
    assert (line["library"], line["error"], line["level"]) == ("some.package", "ValueError", "error")
    assert "alice" not in json.dumps(line)
    assert "network" not in json.dumps(line)

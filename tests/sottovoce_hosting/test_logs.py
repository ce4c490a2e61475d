"""Logs: one JSON object a line, nothing from the words of libraries."""

import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sottovoce_hosting.logs import Rare, Sink, configure, log, stderr

PATIENCE = 10.0


def logged(capture: pytest.CaptureFixture[str]) -> str:
    stderr.flush(PATIENCE)
    return capture.readouterr().err


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = logging.root.handlers[:]
    yield
    structlog.reset_defaults()
    stderr.flush(PATIENCE)
    logging.basicConfig(level=logging.WARNING, handlers=before, force=True)


def test_a_line_is_json_with_its_level_and_time(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log.info("a connection failed", error="ValueError")
    line = json.loads(logged(capfd))
    assert (line["event"], line["level"], line["error"]) == ("a connection failed", "info", "ValueError")
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    log.info("a connection failed")
    assert logged(capfd) == ""


def test_of_a_library_only_its_name_and_the_error_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    try:
        raise ValueError("bytes from the network")
    except ValueError:
        logging.getLogger("some.package").exception("request %s failed", "/v1/alice")
    logging.getLogger("some.package").info("nothing")
    line = json.loads(logged(capfd))
    assert (line["library"], line["error"], line["level"]) == ("some.package", "ValueError", "error")
    assert "alice" not in json.dumps(line)
    assert "network" not in json.dumps(line)


def lines_of(reader: int) -> list[Any]:
    """What was written to a pipe, whose other end is closed."""
    with open(reader, "rb") as pipe:
        return [json.loads(line) for line in pipe]


def filled_pipe() -> tuple[int, int, int]:
    """(read end, write end, bytes inside) of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = 0
    try:
        while True:
            size += os.write(writer, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer, size


def test_whoever_does_not_read_the_log_holds_up_nothing_and_is_told_what_was_dropped() -> None:
    reader, writer, size = filled_pipe()
    sink = Sink(writer, capacity=3)
    for number in range(10):
        sink.write(json.dumps(number) + "\n")
    sink.flush(0.01)
    while size:
        size -= len(os.read(reader, size))
    sink.flush(PATIENCE)
    sink.write('"after"\n')
    sink.flush(PATIENCE)
    os.close(writer)
    written = lines_of(reader)
    told = [line["count"] for line in written if isinstance(line, dict)]
    assert len(written) - len(told) + sum(told) == 11


@pytest.mark.parametrize("opened", ["/dev/full", "closed"])
def test_a_log_that_cannot_be_written_raises_nothing(opened: str) -> None:
    descriptor = -1 if opened == "closed" else os.open(opened, os.O_WRONLY)
    sink = Sink(descriptor)
    for _ in range(3):
        sink.write("line\n")
        sink.flush(PATIENCE)
    if descriptor >= 0:
        os.close(descriptor)
    assert not [thread for thread in threading.enumerate() if thread.name == "log" and not thread.daemon]


def test_an_event_that_peers_cause_is_written_once_a_minute_with_its_count(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    times = iter((0.0, 1.0, 59.0, 60.0, 61.0))
    rare = Rare("a connection failed", lambda: next(times))
    for _ in range(5):
        rare.note(error="ValueError")
    lines = [json.loads(line) for line in logged(capfd).splitlines()]
    assert [(line["event"], line["error"], line["count"]) for line in lines] == [
        ("a connection failed", "ValueError", 1), ("a connection failed", "ValueError", 3)
    ]  # fmt: skip

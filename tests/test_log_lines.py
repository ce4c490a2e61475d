"""The look at the servers' logs sees what it is there to see, in this process and in those that tests start."""

import base64
import hashlib
import json
import subprocess
import sys

import pytest

from sottovoce_hosting.logs import log
from tests import conftest
from tests.log_lines import complaints

QUEUE = hashlib.sha256(b"a queue").digest()[:16]
KEY = hashlib.sha256(b"a key").digest()
SENTENCE = "the database cannot be written"
#: How a server could let something slip: fields beside an event that is good.
SLIPS = {
    "an id in hexadecimal": {"queue": QUEUE.hex()},
    "an id as bytes": {"reason": repr(QUEUE)},
    "an id as numbers": {"reason": str(list(QUEUE))},
    "a list": {"queue": list(QUEUE)},
    "a key in base64": {"reason": base64.b64encode(KEY).decode()},
    "a key in URL-safe base64": {"error": base64.urlsafe_b64encode(KEY).decode()},
    "a key in a sentence": {"reason": f"the database failed: {base64.b64encode(KEY).decode()}"},
    "a hash": {"at": hashlib.sha256(KEY).hexdigest()},
    "a hash as a number": {"count": int.from_bytes(KEY, "big")},
    "an address": {"reason": "the database failed: 192.0.2.7"},
    "an address of the new kind": {"reason": "the database failed: 2001:db8::7"},
    "a payload": {"reason": "see you at eight"},
    "a payload as an error": {"error": "see you at eight"},
    "a name": {"service": "alice"},
    "a path in a sentence": {"reason": "the database failed: /srv/alice/relay.db"},
    "a path as a place": {"at": "/srv/alice/relay.db:7"},
}
GOOD = [
    {"event": SENTENCE, "level": "error", "timestamp": "2026-01-31T12:00:00.123456Z"},
    {"event": "a connection failed", "count": 12, "error": "ValueError", "level": "info"},
    {"event": "a handler failed", "error": "KeyError", "at": "sottovoce_relay.gateway:120"},
    {"event": SENTENCE, "reason": "the database failed: disk I/O error"},
]


@pytest.mark.parametrize("fields", SLIPS.values(), ids=SLIPS.keys())
def test_a_line_that_tells_something_is_found(fields: dict[str, object]) -> None:
    assert complaints(json.dumps({"event": SENTENCE, "level": "error", **fields}))


@pytest.mark.parametrize("event", [QUEUE.hex(), "a connection of alice failed", "127.0.0.1 connected"])
def test_an_event_that_is_no_sentence_of_a_server_is_found(event: str) -> None:
    assert complaints(json.dumps({"event": event}))


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "hello", '"' + QUEUE.hex() + '"'])
def test_a_line_that_is_no_log_line_is_found(line: str) -> None:
    assert complaints(line)


@pytest.mark.parametrize("fields", GOOD)
def test_what_servers_do_log_is_let_through(fields: dict[str, object]) -> None:
    assert complaints(json.dumps(fields)) == []


def test_a_line_of_a_server_in_this_process_is_looked_at() -> None:
    conftest.new_log_lines()
    log.info("a connection failed", queue=QUEUE)
    (line,) = conftest.new_log_lines()
    assert complaints(line)


def test_a_line_of_a_process_that_a_test_starts_is_looked_at() -> None:
    code = f"""
from sottovoce_hosting import logs
logs.configure("info")
logs.log.info("a connection failed", queue="{QUEUE.hex()}")
logs.stderr.flush(10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    (line,) = conftest.new_log_lines()
    assert line + "\n" == done.stderr, "what is looked at is what was logged"
    assert complaints(line)

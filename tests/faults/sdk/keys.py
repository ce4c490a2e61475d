"""A recorder that holds the keys: every (key, nonce) that a client encrypts under, every envelope that it puts on the
wire, and what makes one of them wrong.

Keys and envelopes are written down as hashes. Installed in a client's process, from outside.
"""

from collections.abc import Iterable
from typing import Any

from sottovoce import links
from sottovoce.crypto import primitives
from sottovoce.protocol import sessions
from sottovoce_wire.frames import Send, decode_client_message
from tests.faults.sdk.journal import Event, Journal


def install(journal: Journal) -> None:
    """Write down from now on: `pair` key nonce, `made` envelope message-key, `wire` envelope."""
    last_key = _record_pairs(journal)
    _record_envelopes(journal, last_key)
    _record_wire(journal)


def _hash(data: bytes) -> str:
    return primitives.sha256(data).hex()[:32]


def _record_pairs(journal: Journal) -> list[str]:
    of_header, of_body = primitives.AeadKey.encrypt, primitives.encrypt
    last = [""]

    def header(held: primitives.AeadKey, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        journal.note("pair", _hash(held.key), nonce.hex())
        return of_header(held, nonce, plaintext, associated_data)

    def body(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        last[0] = _hash(key)
        journal.note("pair", last[0], nonce.hex())
        return of_body(key, nonce, plaintext, associated_data)

    primitives.AeadKey.encrypt = header  # type: ignore[assignment, method-assign]
    primitives.encrypt = body
    return last


def _record_envelopes(journal: Journal, last_key: list[str]) -> None:
    genuine = sessions.encrypt

    def encrypt(*args: Any, **options: Any) -> bytes:
        envelope = genuine(*args, **options)
        journal.note("made", _hash(envelope), last_key[0])
        return envelope

    sessions.encrypt = encrypt


def _record_wire(journal: Journal) -> None:
    genuine = links.Link.send

    async def send(self: links.Link, message: bytes) -> None:
        for frame in decode_client_message(message):
            if isinstance(frame, Send):
                for item in frame.items:
                    journal.note("wire", _hash(item.body))
        await genuine(self, message)

    links.Link.send = send  # type: ignore[method-assign]


def used_twice(events: Iterable[Event]) -> list[str]:
    """No key with one nonce twice, whoever heard of it; no message key for two envelopes on the wire."""
    found: list[str] = []
    pairs: set[tuple[str, str]] = set()
    made: dict[str, str] = {}
    carried: dict[str, str] = {}
    for kind, *words in events:
        if kind == "pair":
            if (words[0], words[1]) in pairs:
                found.append("a key and a nonce come twice")
            pairs.add((words[0], words[1]))
        elif kind == "made":
            made[words[0]] = words[1]
        elif kind == "wire":
            key = made.get(words[0])
            if key is None:
                found.append("an envelope on the wire that nobody made")
            elif carried.setdefault(key, words[0]) != words[0]:
                found.append("a message key carries two envelopes")
    return found

"""The work that every contestant does at `scripts/bench crypto`, and how long once takes. It knows no contestant.

Each piece makes what it needs beforehand, measures the calls alone, and checks that what came out is what went in: a
contestant that is quick because it does nothing has no figure. Times are the processor's: none of the work waits for
anything, and what others do on the machine is not the contestants'. No cryptography here.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Protocol, TypeAlias

#: One message: 256 bytes of text, since one of the peers knows nothing but text.
BODY: Final = b"sotto voce, mezza voce, a mezza." * 8
MICROSECONDS: Final = 1e6

Figures: TypeAlias = dict[str, float]


class WrongResult(Exception):  # noqa: N818 - what it says of a contestant, which is then not measured
    """A contestant's message did not come out as it went in."""


@dataclass(frozen=True)
class Counts:
    """How often each piece of work is done in one round: so often that a cold cache at its beginning hardly counts."""

    messages: int
    turns: int
    setups: int
    group: int
    reverse: int
    packs: int
    attachment_mib: int


FULL: Final = Counts(messages=3_000, turns=300, setups=20, group=1_000, reverse=1_000, packs=1_000, attachment_mib=32)
QUICK: Final = Counts(messages=300, turns=30, setups=6, group=100, reverse=1_000, packs=300, attachment_mib=8)


@dataclass(frozen=True)
class Side:
    """One end of a session: bytes to what travels and back, `refusal` for a message that it cannot open any more."""

    encrypt: Callable[[bytes], Any]
    decrypt: Callable[[Any], bytes]
    refusal: type[Exception] = WrongResult


#: Both ends of a session, the initiator first.
Pair: TypeAlias = tuple[Side, Side]
#: A group's speaker, and a member of it: text to what travels, and back.
Group: TypeAlias = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
#: Sets a session up from keys that are published: the other side has read the first text when it returns.
Meeting: TypeAlias = Callable[[], Pair]
#: One piece of work: so many times, and the figures that it gives.
Work: TypeAlias = Callable[[Counts], Figures]


class Contestant(Protocol):
    """What is measured. `works` by name; those of one name are the same work."""

    @property
    def name(self) -> str:
        """As in the report and the JSON."""

    @property
    def works(self) -> Mapping[str, Work]:
        """What it can do."""


def each(calls: Iterable[Callable[[], object]]) -> float:
    """Microseconds that one of a few long calls takes: the median. All of them are prepared before the first."""
    prepared = list(calls)
    gc.collect()
    return median(_once(call) for call in prepared)


def _once(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * MICROSECONDS


def many(call: Callable[[], object], count: int) -> float:
    """Microseconds that one of so many short calls takes: the mean."""
    gc.collect()
    began = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - began) / count * MICROSECONDS


def mapped(call: Callable[[Any], Any], inputs: list[Any]) -> tuple[list[Any], float]:
    """What the call makes of each input, and microseconds for one."""
    gc.collect()
    began = time.process_time()
    outputs = [call(given) for given in inputs]
    return outputs, (time.process_time() - began) / len(inputs) * MICROSECONDS


def check(opened: Iterable[bytes]) -> None:
    """Raise WrongResult unless all of it is the body."""
    if any(text != BODY for text in opened):
        raise WrongResult("a message came out changed")


def set_up(meeting: Callable[[], Meeting]) -> Work:
    """Published keys to the first text read, both sides."""

    def work(counts: Counts) -> Figures:
        return {"setup_us": each(meeting() for _ in range(counts.setups))}

    return work


def used(meeting: Callable[[], Meeting]) -> Pair:
    """A session on which both have written and the initiator again: the next message needs no new keys."""
    pair = initiator, responder = meeting()()
    check([initiator.decrypt(responder.encrypt(BODY)), responder.decrypt(initiator.encrypt(BODY))])
    return pair


def messages(meeting: Callable[[], Meeting]) -> Work:
    """One way and in order."""

    def work(counts: Counts) -> Figures:
        initiator, responder = used(meeting)
        sent, encrypt_us = mapped(initiator.encrypt, [BODY] * counts.messages)
        opened, decrypt_us = mapped(responder.decrypt, sent)
        check(opened)
        return {"encrypt_us": encrypt_us, "decrypt_us": decrypt_us}

    return work


def pingpong(meeting: Callable[[], Meeting]) -> Work:
    """There and back: every message begins a new chain."""

    def work(counts: Counts) -> Figures:
        initiator, responder = used(meeting)

        def turn(_: object) -> tuple[bytes, bytes]:
            there = responder.decrypt(initiator.encrypt(BODY))
            return there, initiator.decrypt(responder.encrypt(BODY))

        opened, pingpong_us = mapped(turn, [None] * counts.turns)
        check(text for both in opened for text in both)
        return {"pingpong_us": pingpong_us}

    return work


def reverse(meeting: Callable[[], Meeting]) -> Work:
    """The last message first: the time for one, or how many are lost."""

    def work(counts: Counts) -> Figures:
        initiator, responder = used(meeting)
        sent = [initiator.encrypt(BODY) for _ in range(counts.reverse)]

        def open_if_possible(message: Any) -> bytes | None:
            try:
                return responder.decrypt(message)
            except responder.refusal:
                return None

        opened, reverse_us = mapped(open_if_possible, sent[::-1])
        check(text for text in opened if text is not None)
        lost = opened.count(None)
        return {"reverse_lost": lost} if lost else {"reverse_us": reverse_us}

    return work


def group(begin: Callable[[], Group]) -> Work:
    """One speaker and one member, in order; the speaker's keys have been handed over."""

    def work(counts: Counts) -> Figures:
        encrypt, decrypt = begin()
        check([decrypt(encrypt(BODY))])
        sent, encrypt_us = mapped(encrypt, [BODY] * counts.group)
        opened, decrypt_us = mapped(decrypt, sent)
        check(opened)
        return {"group_encrypt_us": encrypt_us, "group_decrypt_us": decrypt_us}

    return work


def sessions(meeting: Callable[[], Meeting]) -> dict[str, Work]:
    """All that a contestant can do who sets up sessions."""
    return {
        "set-up": set_up(meeting),
        "messages": messages(meeting),
        "ping-pong": pingpong(meeting),
        "reverse": reverse(meeting),
    }

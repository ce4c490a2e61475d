"""What a client process says about itself, written so that SIGKILL takes nothing of it back; and what is wrong with it.

Nothing here knows the client: an event is a list of words.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

Event: TypeAlias = list[str]


class Journal:
    """A file of events, each written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, kind: str, *words: str) -> None:
        os.write(self._file, json.dumps([kind, *words]).encode() + b"\n")


def read(path: Path) -> list[Event]:
    """All that was noted until now; nothing, if nobody has."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def of_kind(events: Iterable[Event], kind: str) -> list[str]:
    """The first word of each event of this kind."""
    return [event[1] for event in events if event[0] == kind]


def lost_or_twice(
    sent: Sequence[str], tried: Sequence[str], arrived: Sequence[str], *, in_order: bool = True
) -> list[str]:
    """What is wrong with what arrived: `sent` had been promised, `tried` may have been stored by a process that died
    before it could say so. Both are in order, and no text is tried twice."""
    place = {text: number for number, text in enumerate(tried)}
    found = [f"{text!r} was sent and never came" for text in sent if text not in set(arrived)]
    found += [f"{text!r} came {times} times" for text, times in Counter(arrived).items() if times > 1]
    found += [f"{text!r} came and nobody wrote it" for text in arrived if text not in place]
    order = [place[text] for text in arrived if text in place]
    if in_order and order != sorted(order):
        found.append("the order is not the sender's")
    return found


def shown_wrongly(events: Sequence[Event]) -> list[str]:
    """What is wrong with what an application was shown, over all lives of its process.

    It notes `life` when it starts, `shown` when it gets a message and `handled` when it has marked it. A message that
    was in hand when the process died comes again, first of all, and tells that it does; so does one that the process
    was about to be handed."""
    found: list[str] = []
    handled: set[str] = set()
    shown: set[str] = set()
    in_hand: str | None = None
    is_first = False
    for kind, *words in events:
        if kind == "life":
            is_first = True
        elif kind == "shown":
            text, attempt = words
            if text in handled:
                found.append(f"{text!r} was handled, and is shown again")
            if text in shown and not (is_first and text == in_hand):
                found.append(f"{text!r} is shown twice, and was not in hand")
            if attempt == "1" if text in shown else attempt != "1" and not is_first:
                found.append(f"{text!r} is shown as attempt {attempt}")
            shown.add(text)
            in_hand, is_first = text, False
        elif kind == "handled":
            handled.add(words[0])
            in_hand = None
    return found

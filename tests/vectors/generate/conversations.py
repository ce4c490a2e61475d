"""Conversations for the vectors of whole sessions: how a session comes to a point, and what goes well.

Nothing here is refused for good: each ends with a message that is read or written.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.second.message import END
from tests.second.ratchet import Sending

from .cast import DAY, stream
from .talk import Talk

_LENGTHS: Final = (0, 0, 0, 0, 5, 30, 150, 217, 218, 254, 255, 300)


def _body(length: int) -> bytes:
    return b"x" * length


class _Weather:
    """Decisions that look random: numbers below a bound, always the same for a name."""

    def __init__(self, name: str) -> None:
        self._bytes: Iterator[int] = iter(stream(f"{name}, weather", 20_000))

    def below(self, bound: int) -> int:
        return (next(self._bytes) << 8 | next(self._bytes)) % bound

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent


def _send_something(talk: Talk, side: str, weather: _Weather) -> int:
    if weather.chance(12):
        return talk.whisper(side)
    return talk.send(side, _body(_LENGTHS[weather.below(len(_LENGTHS))]))


def _arrive(talk: Talk, waiting: list[int], weather: _Weather) -> None:
    """One of the messages under way comes: late, damaged before, twice, or not at all."""
    step = waiting.pop(0 if weather.chance(75) else weather.below(len(waiting)))
    if weather.chance(6):
        return
    if weather.chance(5):
        talk.deliver(step, flip=weather.below(300))
    talk.deliver(step)
    if weather.chance(5):
        talk.deliver(step)


def _bad_network() -> Talk:
    """The first epoch opens after 50 messages, the second after a day."""
    name = "bad network"
    talk, weather = Talk(name), _Weather(name)
    under_way: dict[str, list[int]] = {"A": [], "B": []}
    talk.exchange("A", b"hello")
    while min(side.epoch for side in talk.sides.values()) < 2:
        talk.now += 7200 if talk.sides["B"].epoch else 60
        side = "AB"[weather.below(2)]
        if weather.chance(50) and len(under_way[side]) < 4:
            under_way[side].append(_send_something(talk, side, weather))
        elif under_way[side]:
            _arrive(talk, under_way[side], weather)
        if weather.chance(3):
            talk.restart(side)
    for side, steps in under_way.items():
        for step in steps:
            talk.deliver(step)
        talk.exchange(side, b"good night")
    return talk


def offered(talk: Talk) -> Talk:
    """Until B has the whole key: the epoch opens after a day, and after another the key goes whole."""
    talk.exchange("A", b"hello")
    talk.exchange("B", b"hello")
    for _ in range(2):
        talk.now += DAY
        talk.exchange("A")
    return talk


def due(talk: Talk) -> Talk:
    """Until A has the secret."""
    offered(talk)
    talk.exchange("B")
    talk.now += DAY
    talk.exchange("B")
    return talk


def mixed(talk: Talk) -> Talk:
    """Until both sides are in epoch 1."""
    due(talk)
    talk.exchange("A")
    return talk


def _whole_pieces() -> Talk:
    talk = Talk("whole pieces")
    talk.exchange("A")
    talk.exchange("B")
    talk.now += DAY
    lost = [talk.send("A", _body(255)), talk.send("A", _body(300))]
    talk.now += DAY - 1
    talk.send("A", _body(255))
    talk.now += 1
    talk.exchange("A")  # the whole key
    talk.exchange("A")
    talk.deliver(talk.send("B", _body(255)))
    talk.now += DAY
    talk.exchange("B", _body(300))  # the whole ciphertext
    for step in lost:
        talk.deliver(step)
    for side in "ABAB":
        talk.exchange(side)
    return talk


def _late_across_epochs() -> Talk:
    """Kept keys of two chains before, opened in the next epoch; the fragments beside them are of an epoch gone by."""
    talk = Talk("late across epochs")
    talk.exchange("A")
    talk.exchange("B")
    talk.now += DAY
    held = [talk.send("A") for _ in range(3)]
    talk.exchange("A")
    talk.now += DAY
    talk.exchange("A")
    answers = [talk.send("B") for _ in range(6)]
    for step in reversed(answers[2:]):
        talk.deliver(step)
    talk.deliver(answers[0])
    talk.exchange("A")
    talk.deliver(answers[1])
    for step in held:
        talk.deliver(step)
    talk.exchange("B")
    talk.deliver(held[1])  # a second time: of a chain gone by
    talk.exchange("A")
    return talk


def _ephemeral() -> Talk:
    talk = Talk("ephemeral")
    first = talk.send("A")
    early = [talk.whisper("A") for _ in range(3)]
    talk.deliver(early[0])
    talk.deliver(first)
    for step in (*early, early[1]):
        talk.deliver(step)
    later = [talk.whisper("A") for _ in range(7)]
    talk.restart("A")
    later.append(talk.whisper("A"))
    for step in (later[6], later[2], later[7]):
        talk.deliver(step)
    talk.whisper("B")  # before a message in order: refused
    talk.exchange("B")
    talk.deliver(talk.whisper("B"))
    talk.deliver(talk.whisper("A"))  # on the chain before, while a step is due
    talk.exchange("A")
    talk.deliver(talk.whisper("B"))
    talk.deliver(talk.whisper("A"))
    return talk


def _order() -> Talk:
    """Behind, ahead, beyond the window, and over a turn."""
    talk = Talk("order")
    sent = [talk.send("A") for _ in range(50)]
    for index in (2, 0, 49, 1, 30, 30, 5):
        talk.deliver(sent[index])
    talk.exchange("B")
    last = [talk.send("A") for _ in range(4)]
    talk.deliver(last[3])
    for step in (sent[48], last[0], last[0], last[1]):
        talk.deliver(step)
    return talk


def _damaged() -> Talk:
    """Each damaged message leaves everything as it was; then the message itself comes."""
    talk = Talk("damaged")
    talk.exchange("A")
    talk.exchange("B")
    for place in (0, 1, 9, 21, 36, 57, 80, 81, 200, 352):
        talk.deliver(talk.send("A"), flip=place)
    step = talk.send("A")
    talk.receive("B", talk.message(step)[:-1])
    talk.receive("B", talk.message(step) + b"\x00")
    talk.deliver(step)
    talk.receive("B", talk.message(0))
    talk.exchange("A")
    return talk


def near_the_end(talk: Talk, *, last: int, ahead: int = 8) -> None:
    """A has written all of its chain but a few messages, and B has read them and looks as far ahead."""
    talk.exchange("A")
    a, b = talk.sides["A"], talk.sides["B"]
    assert isinstance(a.sending, Sending)
    assert b.receiving
    talk.restore("A", replace(a, sending=replace(a.sending, n=END - last)))
    talk.restore("B", replace(b, receiving=replace(b.receiving, next=END - last, ahead=END - last + ahead)))


def _last_of_a_chain() -> Talk:
    talk = Talk("last of a chain")
    near_the_end(talk, last=4)
    for _ in range(4):
        talk.exchange("A")
    talk.send("A")  # refused
    talk.exchange("B")
    talk.exchange("A")
    return talk


def _last_out_of_order() -> Talk:
    talk = Talk("last out of order")
    near_the_end(talk, last=12)
    sent = [talk.send("A") for _ in range(12)]
    for index in (1, 4, 5, 7, 9, 11, 0, 10):
        talk.deliver(sent[index])
    return talk


def _window_at_the_end() -> Talk:
    """The window has reached the end; the rule asks for one number beyond, which has no tag."""
    talk = Talk("window at the end")
    near_the_end(talk, last=10, ahead=10)
    sent = [talk.send("A") for _ in range(10)]
    for index in (2, 0, 9):
        talk.deliver(sent[index])
    return talk


CONVERSATIONS: Final[dict[str, Callable[[], Talk]]] = {
    "two epochs on a bad network": _bad_network,
    "an epoch by whole pieces, after a day each": _whole_pieces,
    "late messages across an epoch": _late_across_epochs,
    "ephemeral messages, and a restart": _ephemeral,
    "out of order, beyond the window, over a turn": _order,
    "damaged messages change nothing": _damaged,
    "up to the end of a chain": _last_of_a_chain,
    "up to the end of a chain, out of order": _last_out_of_order,
    "no tag beyond the end of a chain": _window_at_the_end,
}

"""Who hears of which queue."""

from collections.abc import Sequence

from sottovoce_relay.bus import Bus
from sottovoce_relay.envelopes import Loss, Stored
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId

ONE, TWO = QueueId(b"1" * 16), QueueId(b"2" * 16)


class Ear:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def committed(self, queue: QueueId, envelopes: Sequence[Stored]) -> None:
        self.heard.append((queue, [envelope.seq for envelope in envelopes]))

    def unsure(self, queue: QueueId) -> None:
        self.heard.append(("unsure", queue))

    def lost(self, loss: Loss) -> None:
        self.heard.append(loss)

    def displaced(self) -> None:
        self.heard.append("displaced")


def stored(queue: QueueId, seq: int) -> Stored:
    return Stored(queue, seq, KeyClass.GROUP, 0, b"")


def test_each_listener_hears_of_its_own_queues_in_order() -> None:
    bus, one, two = Bus(), Ear(), Ear()
    bus.listen(ONE, one)
    bus.listen(TWO, two)
    bus.committed([stored(ONE, 1), stored(TWO, 1), stored(QueueId(bytes(16)), 1), stored(ONE, 2)])
    bus.unsure([TWO, QueueId(bytes(16))])
    bus.lost([Loss(ONE, 3, 1)])
    assert one.heard == [(ONE, [1, 2]), Loss(ONE, 3, 1)]
    assert two.heard == [(TWO, [1]), ("unsure", TWO)]


def test_the_newest_listener_displaces_the_one_before() -> None:
    bus, old, new = Bus(), Ear(), Ear()
    bus.listen(ONE, old)
    bus.listen(ONE, old)
    assert old.heard == []
    bus.listen(ONE, new)
    bus.stop(ONE, old)  # the old one's end takes nothing from the new one
    bus.committed([stored(ONE, 1)])
    assert (old.heard, new.heard) == (["displaced"], [(ONE, [1])])


def test_who_stops_listening_hears_nothing_more() -> None:
    bus, ear = Bus(), Ear()
    bus.listen(ONE, ear)
    bus.stop(ONE, ear)
    bus.committed([stored(ONE, 1)])
    assert ear.heard == []

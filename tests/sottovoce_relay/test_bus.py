"""Who hears of which queue."""

from sottovoce_relay.bus import Bus
from sottovoce_relay.envelopes import Loss
from sottovoce_relay.mailboxes import Mailbox
from sottovoce_wire.ids import QueueId
from tests.sottovoce_relay.parts import NUMBERS, OTHER, QUEUE, Receiver, envelope

NOBODYS = QueueId(bytes(16))


def receiver(queue: QueueId = QUEUE) -> Receiver:
    return Receiver(Mailbox(queue, NUMBERS[queue]))


def test_each_listener_hears_of_its_own_queues_in_order() -> None:
    bus, one, two = Bus(), receiver(QUEUE), receiver(OTHER)
    bus.listen(QUEUE, one)
    bus.listen(OTHER, two)
    bus.committed([envelope(1, b"1"), envelope(2, b"other", queue=OTHER), envelope(3, b"3")])
    bus.unsure([OTHER, NOBODYS])
    bus.lost([Loss(QUEUE, 3, 1), Loss(NOBODYS, 1, 0)])
    assert (one.heard, one.lost_here) == ([b"1", b"3"], [Loss(QUEUE, 3, 1)])
    assert (two.heard, two.lost_here) == ([b"other", "unsure"], [])


def test_the_listener_of_a_queue_is_the_newest() -> None:
    bus, old, new = Bus(), receiver(), receiver()
    assert bus.listener(QUEUE) is None
    bus.listen(QUEUE, old)
    bus.listen(QUEUE, new)
    assert bus.listener(QUEUE) is new
    assert len(bus) == 1


def test_the_newest_listener_displaces_the_one_before() -> None:
    bus, old, new = Bus(), receiver(), receiver()
    bus.listen(QUEUE, old)
    bus.listen(QUEUE, old)
    assert old.heard == []
    bus.listen(QUEUE, new)
    bus.stop(QUEUE, old)  # the old one's end takes nothing from the new one
    bus.committed([envelope(1, b"1")])
    assert (old.heard, new.heard) == (["displaced"], [b"1"])


def test_who_stops_listening_hears_nothing_more() -> None:
    bus, gone = Bus(), receiver()
    bus.listen(QUEUE, gone)
    bus.stop(QUEUE, gone)
    bus.committed([envelope(1)])
    assert gone.heard == []
    assert bus.listener(QUEUE) is None

"""The client's links, fed frames by hand: what they answer, and that a relay that breaks the protocol is found out."""

import pytest

from sottovoce.crypto import primitives
from sottovoce.crypto.identity import OwnerKey
from sottovoce.protocol.relay_link import (
    Answered,
    Arrived,
    CaughtUp,
    Gap,
    OwnerLink,
    OwnQueue,
    Ready,
    RelayFault,
    SenderLink,
    hello,
)
from sottovoce_wire import frames, limits, records
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Delivery, KeyClass, RelayFrame, SendItem, SendResult, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash

ORIGIN = "https://relay.example"
NONCE = bytes(range(32))
WELCOME = frames.Welcome(1, NONCE, limits.MAX_ENVELOPE, limits.MAX_FRAME, limits.MAX_SEND_ITEMS)
ITEM = SendItem(QueueId(bytes(16)), SendKey(bytes(32)), EnvelopeId(bytes(16)), Ttl.DAY, b"body")


def queue(key_class: KeyClass) -> OwnQueue:
    return OwnQueue(OwnerKey.generate(), ((SendKeyHash(bytes(32)), key_class),))


def owner_link() -> tuple[OwnerLink, list[OwnQueue]]:
    queues = [queue(KeyClass.STRANGER), queue(KeyClass.CONTACT)]
    return OwnerLink(ORIGIN, queues), queues


def ready_owner() -> tuple[OwnerLink, QueueId]:
    link, queues = owner_link()
    link.receive(frames.encode(WELCOME))
    for request in range(4):
        link.receive(frames.encode(frames.Done(request)))
    return link, queues[0].owner.queue_id


def deliver(queue_id: QueueId, *numbers: int) -> bytes:
    return frames.encode(frames.Deliver(queue_id, [Delivery(n, KeyClass.STRANGER, b"body") for n in numbers]))


def test_the_first_frame_offers_the_version() -> None:
    assert frames.decode_client_frame(hello()) == frames.Hello([1])


def test_an_owner_proves_every_queue_over_origin_and_nonce_then_receives() -> None:
    link, queues = owner_link()
    happened, sent = link.receive(frames.encode(WELCOME))
    said = [frames.decode_client_frame(frame) for frame in sent]
    assert happened == []
    for owned, create, receive in zip(queues, said[::2], said[1::2], strict=True):
        assert isinstance(create, frames.CreateQueue)
        challenge = records.owner_challenge(ORIGIN, NONCE, owned.owner.queue_id)
        primitives.verify(owned.owner.public, challenge, create.signature)
        assert isinstance(receive, frames.Receive)
        assert receive.queue == owned.owner.queue_id


def test_an_owner_is_ready_when_every_request_is_done() -> None:
    link, _ = owner_link()
    link.receive(frames.encode(WELCOME))
    happened = [link.receive(frames.encode(frames.Done(request)))[0] for request in range(4)]
    assert happened == [[], [], [], [Ready()]]


def test_envelopes_markers_and_gaps_become_events() -> None:
    link, queue_id = ready_owner()
    assert link.receive(deliver(queue_id, 1, 2)) == ([Arrived(queue_id, 2, True, (b"body", b"body"))], [])
    assert link.receive(deliver(queue_id, 3)) == ([Arrived(queue_id, 3, True, (b"body",))], [])
    assert link.receive(frames.encode(frames.CaughtUp(queue_id))) == ([CaughtUp(queue_id)], [])
    gap = frames.Gap(queue_id, 7, frames.GapReason.EXPIRED)
    assert link.receive(frames.encode(gap)) == ([Gap(queue_id, 7)], [])
    assert frames.decode_client_frame(link.ack(queue_id, 3)) == frames.Ack(queue_id, 3, [])


@pytest.mark.parametrize("numbers", [(2,), (0,), (1, 3), (2, 1), (1, 1)])
def test_delivery_numbers_that_do_not_count_on_are_the_relays_fault(numbers: tuple[int, ...]) -> None:
    link, queue_id = ready_owner()
    with pytest.raises(RelayFault) as fault:
        link.receive(deliver(queue_id, *numbers))
    assert fault.value.code is Code.UNEXPECTED_FRAME


def test_a_delivery_number_said_twice_is_the_relays_fault() -> None:
    link, queue_id = ready_owner()
    link.receive(deliver(queue_id, 1))
    with pytest.raises(RelayFault):
        link.receive(deliver(queue_id, 1))


def test_frames_for_a_queue_that_was_not_proven_are_the_relays_fault() -> None:
    link, _ = ready_owner()
    for frame in (
        deliver(QueueId(bytes(16)), 1),
        frames.encode(frames.CaughtUp(QueueId(bytes(16)))),
        frames.encode(frames.Gap(QueueId(bytes(16)), 1, frames.GapReason.EXPIRED)),
    ):
        with pytest.raises(RelayFault):
            link.receive(frame)


@pytest.mark.parametrize("code", [Code.BAD_SIGNATURE, Code.REGISTRATION_CLOSED])
def test_a_refused_request_ends_the_link_with_its_code(code: Code) -> None:
    link, _ = owner_link()
    link.receive(frames.encode(WELCOME))
    with pytest.raises(RelayFault) as fault:
        link.receive(frames.encode(frames.Failed(0, code, "no")))
    assert fault.value.code is code


@pytest.mark.parametrize(
    "frame",
    [
        frames.Done(0),
        frames.SendResults(1, [SendResult(Code.ACCEPTED, 0)]),
        frames.Welcome(2, NONCE, 1, 1, 1),
        frames.Goodbye(Code.SHUTTING_DOWN, "later"),
    ],
)
def test_before_the_welcome_nothing_else_may_come(frame: RelayFrame) -> None:
    for receive in (owner_link()[0].receive, SenderLink().receive):
        with pytest.raises(RelayFault):
            receive(frames.encode(frame))


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\xc1", frames.encode(WELCOME) + b"\x00", bytes(limits.MAX_FRAME + 1)])
def test_bytes_that_are_no_frame_are_the_relays_fault(junk: bytes) -> None:
    for receive in (owner_link()[0].receive, SenderLink().receive):
        with pytest.raises(RelayFault):
            receive(junk)


def test_a_sender_sends_one_batch_at_a_time_and_gets_its_results() -> None:
    link = SenderLink()
    assert link.receive(frames.encode(WELCOME)) == [Ready()]
    sent = frames.decode_client_frame(link.send([ITEM, ITEM]))
    assert isinstance(sent, frames.Send)
    results = [SendResult(Code.ACCEPTED, 0), SendResult(Code.QUEUE_FULL, 500)]
    answer = frames.encode(frames.SendResults(sent.request, results))
    assert link.receive(answer) == [Answered(tuple(results))]


@pytest.mark.parametrize(("request_offset", "count"), [(1, 2), (0, 1), (0, 3)])
def test_results_that_answer_no_request_are_the_relays_fault(request_offset: int, count: int) -> None:
    link = SenderLink()
    link.receive(frames.encode(WELCOME))
    sent = frames.decode_client_frame(link.send([ITEM, ITEM]))
    assert isinstance(sent, frames.Send)
    answer = frames.SendResults(sent.request + request_offset, [SendResult(Code.ACCEPTED, 0)] * count)
    with pytest.raises(RelayFault):
        link.receive(frames.encode(answer))


def test_results_that_nobody_asked_for_are_the_relays_fault() -> None:
    link = SenderLink()
    link.receive(frames.encode(WELCOME))
    with pytest.raises(RelayFault):
        link.receive(frames.encode(frames.SendResults(0, [SendResult(Code.ACCEPTED, 0)])))


def test_what_a_queue_is_for_decides_not_the_class_that_the_relay_names() -> None:
    link, queues = owner_link()
    link.receive(frames.encode(WELCOME))
    for request in range(4):
        link.receive(frames.encode(frames.Done(request)))
    for owned, sealed_only in zip(queues, (True, False), strict=True):
        for number, claimed in enumerate((KeyClass.CONTACT, KeyClass.STRANGER), 1):
            items = [Delivery(number, claimed, b"body")]
            happened, _ = link.receive(frames.encode(frames.Deliver(owned.owner.queue_id, items)))
            assert happened == [Arrived(owned.owner.queue_id, number, sealed_only, (b"body",))]

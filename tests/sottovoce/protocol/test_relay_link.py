"""The client's links, fed messages by hand: what they answer, and that a relay that breaks the rules is found out."""

import pytest

from sottovoce.crypto import primitives
from sottovoce.crypto.identity import OwnerKey
from sottovoce.protocol.relay_link import (
    Answered,
    Arrived,
    CaughtUp,
    Gap,
    Overtaken,
    OwnerLink,
    OwnQueue,
    Ready,
    RelayFault,
    SenderLink,
    hello,
    ping,
)
from sottovoce_wire import frames, limits, records
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, Delivery, GapReason, KeyClass, RelayFrame, SendItem, SendResult, Ttl
from sottovoce_wire.frames import message as said
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash

ORIGIN = "https://relay.example"
NONCE = bytes(range(32))
WELCOME = frames.Welcome(1, NONCE, limits.MAX_ENVELOPE, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS)
DONE = [frames.Done(request) for request in range(3)]
ITEM = SendItem(QueueId(bytes(16)), SendKey(bytes(32)), EnvelopeId(bytes(16)), Ttl.DAY, b"body")
NOBODYS = QueueId(bytes(16))


def queue(key_class: KeyClass) -> OwnQueue:
    return OwnQueue(OwnerKey.generate(), ((SendKeyHash(bytes(32)), key_class),))


def owner_link(invite_code: str = "") -> tuple[OwnerLink, list[OwnQueue]]:
    queues = [queue(KeyClass.STRANGER), queue(KeyClass.CONTACT)]
    return OwnerLink(ORIGIN, queues, invite_code), queues


def ready_owner() -> tuple[OwnerLink, QueueId]:
    link, first, _ = receiving_owner()
    return link, first


def receiving_owner() -> tuple[OwnerLink, QueueId, QueueId]:
    """A link that receives both of its queues."""
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    link.receive(said(WELCOME))
    link.receive(said(*DONE))
    assert link.receive(said(frames.CaughtUp(first)))[0] == [CaughtUp(first)]
    assert link.receive(said(frames.Done(3))) == ([], [])
    return link, first, second


def ready_sender() -> SenderLink:
    link = SenderLink()
    link.receive(said(WELCOME))
    return link


def deliver(queue_id: QueueId, *numbers: int) -> frames.Deliver:
    return frames.Deliver(queue_id, [Delivery(n, KeyClass.STRANGER, b"body") for n in numbers])


def passing(queue_id: QueueId) -> frames.DeliverNow:
    return frames.DeliverNow(queue_id, [frames.Passing(KeyClass.CONTACT, b"typing")])


def only(data: bytes) -> ClientFrame:
    """The one frame of a message."""
    (frame,) = frames.decode_client_message(data)
    return frame


def test_the_first_message_offers_the_version_and_nothing_else() -> None:
    assert only(hello()) == frames.Hello([1])
    assert only(ping()) == frames.Ping(0)


def test_an_owner_proves_every_queue_over_origin_and_nonce_and_receives_the_first_in_one_message() -> None:
    link, queues = owner_link()
    happened, (proof,) = link.receive(said(WELCOME))
    *created, receive = frames.decode_client_message(proof)
    assert happened == []
    for owned, create in zip(queues, created, strict=True):
        assert isinstance(create, frames.CreateQueue)
        challenge = records.owner_challenge(ORIGIN, NONCE, owned.owner.queue_id)
        primitives.verify(owned.owner.public, challenge, create.signature)
    assert receive == frames.Receive(2, queues[0].owner.queue_id, 256, 4 * limits.MIB)


@pytest.mark.parametrize("invite_code", ["", "let me in"])
def test_every_queue_is_asked_for_under_the_invite_code(invite_code: str) -> None:
    link, _ = owner_link(invite_code)
    _, (proof,) = link.receive(said(WELCOME))
    created = [frame for frame in frames.decode_client_message(proof) if isinstance(frame, frames.CreateQueue)]
    assert [frame.code for frame in created] == [invite_code] * 2


def test_an_owner_is_ready_when_every_request_is_done() -> None:
    link, _ = owner_link()
    link.receive(said(WELCOME))
    happened = [link.receive(said(done))[0] for done in DONE]
    assert happened == [[], [], [Ready()]]


def test_the_second_queue_is_received_once_the_first_is_caught_up() -> None:
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    link.receive(said(WELCOME, *DONE, deliver(first, 1)))
    for early in (deliver(second, 1), frames.CaughtUp(second), frames.Done(3)):
        with pytest.raises(RelayFault):
            link.receive(said(early))
    _, (sent,) = link.receive(said(frames.Acked(first, 1, []), frames.CaughtUp(first)))
    assert only(sent) == frames.Receive(3, second, 256, 4 * limits.MIB)
    assert link.receive(said(frames.CaughtUp(first))) == ([CaughtUp(first)], []), "it is received once"
    assert link.receive(said(frames.Done(3), deliver(second, 1), frames.CaughtUp(second))) == (
        [Arrived(second, 1, False, (b"body",)), CaughtUp(second)],
        [],
    )


def test_a_relay_may_say_that_a_queue_is_caught_up_before_it_has_answered_for_another() -> None:
    link, queues = owner_link()
    first = queues[0].owner.queue_id
    happened, sent = link.receive(said(WELCOME, *DONE[1:], frames.CaughtUp(first)))
    assert (happened, len(sent)) == ([CaughtUp(first)], 2)
    assert link.receive(said(DONE[0])) == ([], [])
    assert link.receive(said(frames.Done(3))) == ([Ready()], [])


def test_behind_256_that_are_not_acknowledged_more_may_wait_and_nothing_newer_is_taken() -> None:
    link, first, second = receiving_owner()
    link.receive(said(deliver(first, *range(1, 256))))
    assert link.receive(said(deliver(second, 1)))[0] != []
    link.receive(said(deliver(first, 256)))
    assert link.receive(said(frames.Acked(first, 256, []))) == ([], [])
    with pytest.raises(Overtaken):
        link.receive(said(deliver(second, 2)))


def test_what_is_acknowledged_in_time_holds_nothing_up() -> None:
    link, first, second = receiving_owner()
    for number in range(1, 1_000):
        link.receive(said(deliver(first, number), frames.Acked(first, number, [])))
    assert link.receive(said(deliver(second, 1)))[0] == [Arrived(second, 1, False, (b"body",))]


def test_behind_bodies_that_fill_the_window_more_may_wait_as_well() -> None:
    link, first, second = receiving_owner()
    large = bytes(limits.MAX_ENVELOPE)
    for number in range(1, 64):
        link.receive(said(frames.Deliver(first, [Delivery(number, KeyClass.STRANGER, large)])))
    assert link.receive(said(deliver(second, 1)))[0] != []
    link.receive(said(deliver(first, 64)))
    with pytest.raises(Overtaken):
        link.receive(said(deliver(second, 2)))


def test_with_one_always_under_way_the_window_is_not_full() -> None:
    link, first, second = receiving_owner()
    large = bytes(limits.MAX_ENVELOPE)
    for number in range(1, 200):
        link.receive(said(frames.Deliver(first, [Delivery(number, KeyClass.STRANGER, large)])))
        link.receive(said(frames.Acked(first, number - 1, [])))
    assert link.receive(said(deliver(second, 1)))[0] == [Arrived(second, 1, False, (b"body",))]


def test_a_window_that_is_full_when_the_queue_is_caught_up_is_full() -> None:
    """More came since delivery began."""
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    link.receive(said(WELCOME, *DONE, deliver(first, *range(1, 257)), frames.CaughtUp(first), frames.Done(3)))
    with pytest.raises(Overtaken):
        link.receive(said(deliver(second, 1)))


def test_an_owner_who_cannot_wait_takes_what_comes() -> None:
    link, queues = owner_link()
    impatient = OwnerLink(ORIGIN, queues, is_patient=False)
    first, second = (owned.owner.queue_id for owned in queues)
    for each, taken in ((link, False), (impatient, True)):
        each.receive(said(WELCOME, *DONE, frames.CaughtUp(first), frames.Done(3), deliver(first, *range(1, 257))))
        if taken:
            assert each.receive(said(deliver(second, 1)))[0] != []
        else:
            with pytest.raises(Overtaken):
                each.receive(said(deliver(second, 1)))


def test_an_owner_in_a_hurry_receives_all_queues_before_the_first_is_caught_up() -> None:
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    link.receive(said(WELCOME))
    assert link.hurry() == [], "its queues are not proven yet"
    link.receive(said(*DONE, deliver(first, *range(1, 257))))
    (sent,) = link.hurry()
    assert only(sent) == frames.Receive(3, second, 256, 4 * limits.MIB)
    assert link.receive(said(frames.Done(3), deliver(second, 1)))[0] != []
    assert link.receive(said(frames.CaughtUp(first))) == ([CaughtUp(first)], [])
    assert link.hurry() == []


def test_a_hurry_when_all_is_received_changes_nothing() -> None:
    link, first, second = receiving_owner()
    assert link.hurry() == []
    link.receive(said(deliver(first, *range(1, 257))))
    with pytest.raises(Overtaken):
        link.receive(said(deliver(second, 1)))


def test_a_window_that_was_full_before_the_queue_was_caught_up_is_forgotten() -> None:
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    link.receive(said(WELCOME, *DONE, deliver(first, *range(1, 257)), frames.Acked(first, 256, [])))
    link.receive(said(frames.CaughtUp(first), frames.Done(3)))
    assert link.receive(said(deliver(second, 1)))[0] == [Arrived(second, 1, False, (b"body",))]


def test_a_full_window_of_the_last_queue_holds_nothing_up() -> None:
    link, first, second = receiving_owner()
    link.receive(said(deliver(second, *range(1, 257))))
    assert link.receive(said(deliver(first, 1)))[0] == [Arrived(first, 1, True, (b"body",))]
    assert link.receive(said(deliver(second, 257)))[0] == [Arrived(second, 257, False, (b"body",))]


def test_an_acknowledgement_of_what_was_never_delivered_makes_no_room() -> None:
    link, first, second = receiving_owner()
    link.receive(said(frames.Acked(first, 2**53 - 1, []), deliver(first, *range(1, 257))))
    with pytest.raises(Overtaken):
        link.receive(said(deliver(second, 1)))


def test_keys_are_demoted_after_the_queue_has_all_of_its_own_and_before_anything_is_received() -> None:
    old, new = SendKeyHash(b"o" * 32), SendKeyHash(b"n" * 32)
    keys = ((old, KeyClass.CONTACT), (new, KeyClass.CONTACT))
    contact = OwnQueue(OwnerKey.generate(), keys, demoted=(old,))
    link = OwnerLink(ORIGIN, [queue(KeyClass.STRANGER), contact])
    _, (proof,) = link.receive(said(WELCOME))
    _, create, demote, receive = frames.decode_client_message(proof)
    assert isinstance(create, frames.CreateQueue)
    assert [(key.key_hash, key.key_class) for key in create.send_keys] == list(keys)
    assert demote == frames.DemoteSendKey(2, contact.owner.queue_id, old)
    assert isinstance(receive, frames.Receive)
    assert link.receive(said(*DONE)) == ([], [])
    assert link.receive(said(frames.Done(3))) == ([Ready()], [])


def test_envelopes_markers_and_gaps_become_events() -> None:
    link, queue_id = ready_owner()
    assert link.receive(said(deliver(queue_id, 1, 2))) == ([Arrived(queue_id, 2, True, (b"body", b"body"))], [])
    assert link.receive(said(deliver(queue_id, 3))) == ([Arrived(queue_id, 3, True, (b"body",))], [])
    assert link.receive(said(frames.CaughtUp(queue_id))) == ([CaughtUp(queue_id)], [])
    for reason in GapReason:
        assert link.receive(said(frames.Gap(queue_id, 7, reason))) == ([Gap(queue_id, 7, reason)], [])
    assert only(link.ack(queue_id, 3)) == frames.Ack(queue_id, 3, [])


def test_the_frames_of_one_message_are_heard_one_after_another() -> None:
    link, queues = owner_link()
    first, second = (owned.owner.queue_id for owned in queues)
    happened, sent = link.receive(
        said(
            WELCOME,
            *DONE[:2],
            deliver(first, 1),
            *DONE[2:],
            frames.Pong(0),
            deliver(first, 2, 3),
            frames.Acked(first, 1, []),
            frames.CaughtUp(first),
            frames.Done(3),
            deliver(second, 1),
        )
    )
    assert len(sent) == 2
    assert happened == [
        Arrived(first, 1, True, (b"body",)),
        Ready(),
        Arrived(first, 3, True, (b"body", b"body")),
        CaughtUp(first),
        Arrived(second, 1, False, (b"body",)),
    ]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (frames.Goodbye(Code.DISPLACED, "a newer connection"), Code.DISPLACED),
        (frames.SendResults(0, [SendResult(Code.ACCEPTED, 0)]), Code.UNEXPECTED_FRAME),
        (WELCOME, Code.UNEXPECTED_FRAME),
        (frames.Failed(1, Code.INTERNAL, "no"), Code.INTERNAL),
        (deliver(NOBODYS, 1), Code.UNEXPECTED_FRAME),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_in_the_third_frame_is_a_fault_though_two_were_good(fault: RelayFrame, code: Code) -> None:
    """What the two good ones told is lost with the connection, unacknowledged: it comes again."""
    link, queues = owner_link()
    link.receive(said(WELCOME))
    if not isinstance(fault, frames.Failed):
        link.receive(said(*DONE))
    mine = queues[0].owner.queue_id
    with pytest.raises(RelayFault) as raised:
        link.receive(said(deliver(mine, 1), deliver(mine, 2), fault))
    assert raised.value.code is code


def test_a_layout_that_breaks_in_the_third_frame_is_a_fault_though_two_were_good() -> None:
    link, mine = ready_owner()
    good = [frames.encode(deliver(mine, 1)), frames.encode(deliver(mine, 2))]
    with pytest.raises(RelayFault) as raised:
        link.receive(frames.join([*good, b"\x91\x48"]))
    assert raised.value.code is Code.MISSING_FIELD
    assert link.receive(frames.join(good))[0] == [Arrived(mine, number, True, (b"body",)) for number in (1, 2)], (
        "a frame was heard although the message could not be decoded"
    )


def test_ephemeral_envelopes_are_passed_over_and_take_no_numbers() -> None:
    link, mine = ready_owner()
    assert link.receive(said(passing(mine))) == ([], [])
    happened, sent = link.receive(said(deliver(mine, 1), passing(mine), deliver(mine, 2)))
    assert happened == [Arrived(mine, 1, True, (b"body",)), Arrived(mine, 2, True, (b"body",))]
    assert sent == []


@pytest.mark.parametrize("numbers", [(2,), (0,), (1, 3), (2, 1), (1, 1)])
def test_delivery_numbers_that_do_not_count_on_are_the_relays_fault(numbers: tuple[int, ...]) -> None:
    link, queue_id = ready_owner()
    with pytest.raises(RelayFault) as fault:
        link.receive(said(deliver(queue_id, *numbers)))
    assert fault.value.code is Code.UNEXPECTED_FRAME


@pytest.mark.parametrize("together", [True, False])
def test_a_delivery_number_said_twice_is_the_relays_fault(together: bool) -> None:
    link, queue_id = ready_owner()
    once = deliver(queue_id, 1)
    if not together:
        link.receive(said(once))
    with pytest.raises(RelayFault):
        link.receive(said(once, once) if together else said(once))


@pytest.mark.parametrize(
    "frame",
    [
        deliver(NOBODYS, 1),
        frames.CaughtUp(NOBODYS),
        frames.Gap(NOBODYS, 1, GapReason.EXPIRED),
        frames.Acked(NOBODYS, 1, []),
        passing(NOBODYS),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_for_a_queue_that_was_not_proven_is_the_relays_fault(frame: RelayFrame) -> None:
    link, _ = ready_owner()
    with pytest.raises(RelayFault) as fault:
        link.receive(said(frame))
    assert fault.value.code is Code.UNEXPECTED_FRAME


@pytest.mark.parametrize("code", [Code.BAD_SIGNATURE, Code.REGISTRATION_CLOSED])
def test_a_refused_request_ends_the_link_with_its_code(code: Code) -> None:
    link, _ = owner_link()
    link.receive(said(WELCOME))
    with pytest.raises(RelayFault) as fault:
        link.receive(said(frames.Failed(0, code, "no")))
    assert fault.value.code is code


@pytest.mark.parametrize(
    "frame",
    [
        frames.Done(0),
        frames.SendResults(1, [SendResult(Code.ACCEPTED, 0)]),
        frames.Welcome(2, NONCE, 1, 1, 1),
        frames.Goodbye(Code.SHUTTING_DOWN, "later"),
        passing(NOBODYS),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_before_the_welcome_nothing_else_may_come(frame: RelayFrame) -> None:
    for receive in (owner_link()[0].receive, SenderLink().receive):
        with pytest.raises(RelayFault):
            receive(said(frame))


JUNK: dict[str, tuple[bytes, Code]] = {
    "nothing": (b"", Code.MALFORMED),
    "a number": (b"\x00", Code.MALFORMED),
    "an undefined byte": (b"\xc1", Code.MALFORMED),
    "no frame": (b"\x90", Code.WRONG_LENGTH),
    "too many frames": (frames.join([frames.encode(frames.Pong(0))] * 1025), Code.WRONG_LENGTH),
    "a bare frame": (frames.encode(WELCOME), Code.MALFORMED),
    "a client's frame": (hello(), Code.UNKNOWN_TAG),
    "a tail": (said(WELCOME) + b"\x00", Code.TRAILING_BYTES),
    "too many bytes": (bytes(limits.MAX_MESSAGE + 1), Code.FRAME_TOO_LARGE),
}


@pytest.mark.parametrize("what", JUNK)
def test_bytes_that_are_no_message_are_the_relays_fault(what: str) -> None:
    junk, code = JUNK[what]
    for receive in (owner_link()[0].receive, SenderLink().receive):
        with pytest.raises(RelayFault) as fault:
            receive(junk)
        assert fault.value.code is code


def test_a_fault_names_its_code_and_not_the_relays_words() -> None:
    with pytest.raises(RelayFault) as fault:
        SenderLink().receive(said(frames.Goodbye(Code.SHUTTING_DOWN, "\x1b]0;owned\x07")))
    assert str(fault.value) == "shutting_down"


def test_a_sender_sends_one_batch_at_a_time_and_gets_its_results() -> None:
    link = SenderLink()
    assert link.receive(said(WELCOME)) == [Ready()]
    for codes in ((Code.ACCEPTED, Code.QUEUE_FULL), (Code.TRY_AGAIN, Code.ACCEPTED)):
        sent = only(link.send([ITEM, ITEM]))
        assert isinstance(sent, frames.Send)
        assert sent.items == [ITEM, ITEM]
        results = [SendResult(code, 500) for code in codes]
        answer = said(frames.Pong(0), frames.SendResults(sent.request, results), frames.Pong(0))
        assert link.receive(answer) == [Answered(tuple(results))]


@pytest.mark.parametrize(("request_offset", "count"), [(1, 2), (0, 1), (0, 3)])
def test_results_that_answer_no_request_are_the_relays_fault(request_offset: int, count: int) -> None:
    link = ready_sender()
    sent = only(link.send([ITEM, ITEM]))
    assert isinstance(sent, frames.Send)
    answer = frames.SendResults(sent.request + request_offset, [SendResult(Code.ACCEPTED, 0)] * count)
    with pytest.raises(RelayFault):
        link.receive(said(answer))


def test_results_that_nobody_asked_for_are_the_relays_fault() -> None:
    with pytest.raises(RelayFault):
        ready_sender().receive(said(frames.SendResults(0, [SendResult(Code.ACCEPTED, 0)])))


def test_results_said_twice_in_one_message_are_the_relays_fault() -> None:
    link = ready_sender()
    sent = only(link.send([ITEM]))
    assert isinstance(sent, frames.Send)
    answer = frames.SendResults(sent.request, [SendResult(Code.ACCEPTED, 0)])
    with pytest.raises(RelayFault):
        link.receive(said(answer, answer))


@pytest.mark.parametrize("frame", [deliver(NOBODYS, 1), passing(NOBODYS), frames.Done(1)])
def test_a_sender_is_delivered_nothing(frame: RelayFrame) -> None:
    with pytest.raises(RelayFault):
        ready_sender().receive(said(frame))


def test_what_a_queue_is_for_decides_not_the_class_that_the_relay_names() -> None:
    link, *queues = receiving_owner()
    for queue_id, sealed_only in zip(queues, (True, False), strict=True):
        for number, claimed in enumerate((KeyClass.CONTACT, KeyClass.STRANGER), 1):
            items = [Delivery(number, claimed, b"body")]
            happened, _ = link.receive(said(frames.Deliver(queue_id, items)))
            assert happened == [Arrived(queue_id, number, sealed_only, (b"body",))]

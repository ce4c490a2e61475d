"""What a connection makes of each frame, without sockets, tasks or a database."""

from collections.abc import Callable
from typing import Never

import pytest
from nacl.signing import SigningKey

from sottovoce_relay.connection import (
    Acknowledge,
    Action,
    AddKey,
    Connection,
    Create,
    DeleteAll,
    DemoteKey,
    Leave,
    Prove,
    Proven,
    Reply,
    RevokeKey,
    Start,
    Take,
)
from sottovoce_relay.envelopes import Arrival, Shared, name_of
from sottovoce_relay.mailboxes import Mailbox
from sottovoce_relay.states import CONNECTION, ConnectionEvent, ConnectionState
from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, KeyClass, NewSendKey, Ttl, message
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash
from sottovoce_wire.records import owner_challenge
from tests.sottovoce_relay.parts import QUEUE, Receiver, envelope

NONCE = bytes(range(32))
ORIGINS = ("https://relay.example", "https://other.example")
KEY = NewSendKey(SendKeyHash(b"h" * 32), KeyClass.CONTACT)


def at_once(_cost: int) -> float:
    return 0.0


def new_connection(max_envelope: int = limits.MAX_ENVELOPE, wait_for: Callable[[int], float] = at_once) -> Connection:
    return Connection(NONCE, ORIGINS, max_envelope, lambda body, pointers: Shared(77, body, pointers), wait_for)


def hear(connection: Connection, *said: ClientFrame) -> list[Action]:
    """What the connection makes of one message."""
    return list(connection.hear(message(*said)))


def greeted(wait_for: Callable[[int], float] = at_once) -> Connection:
    connection = new_connection(wait_for=wait_for)
    assert [type(action) for action in hear(connection, frames.Hello([1]))] == [Reply]
    return connection


def answer(frame: ClientFrame) -> Action:
    """What a connection that was greeted makes of this."""
    (action,) = hear(greeted(), frame)
    return action


def sign(owner: SigningKey, origin: str = ORIGINS[0], nonce: bytes = NONCE) -> bytes:
    return owner.sign(owner_challenge(origin, nonce, queue_of(owner))).signature


def queue_of(owner: SigningKey) -> QueueId:
    return ids.queue_id_of(bytes(owner.verify_key))


def open_frame(owner: SigningKey, signature: bytes) -> frames.OpenQueue:
    return frames.OpenQueue(7, bytes(owner.verify_key), signature)


def failure(action: Action) -> Code:
    assert isinstance(action, Reply)
    assert isinstance(action.frame, frames.Failed)
    return action.frame.code


def leaving(*actions: Action) -> Code:
    (action,) = actions
    assert isinstance(action, Leave)
    return action.code


def test_hello_is_answered_with_the_nonce_and_the_limits() -> None:
    connection = new_connection(max_envelope=5000)
    welcome = frames.Welcome(1, NONCE, 5000, limits.MAX_MESSAGE, 256)
    assert hear(connection, frames.Hello([9, 1])) == [Reply(welcome)]
    assert connection.state is ConnectionState.OPEN


def test_a_client_of_other_versions_is_told_ours() -> None:
    assert leaving(*hear(new_connection(), frames.Hello([2]))) is Code.UNSUPPORTED_VERSION


def test_nothing_comes_before_hello() -> None:
    assert leaving(*hear(new_connection(), frames.Ping(1))) is Code.UNEXPECTED_FRAME


def test_hello_comes_once() -> None:
    assert leaving(answer(frames.Hello([1]))) is Code.UNEXPECTED_FRAME


# --- Messages -----------------------------------------------------------------------------------------------------


def test_the_frames_of_a_message_count_in_their_order_as_if_each_had_come_alone() -> None:
    assert hear(new_connection(), frames.Hello([1]), frames.Ping(1), frames.Ping(2))[1:] == [
        Reply(frames.Pong(1)),
        Reply(frames.Pong(2)),
    ]


def test_what_precedes_a_frame_that_breaks_a_rule_is_carried_out_and_nothing_that_follows_it() -> None:
    actions = hear(greeted(), frames.Ping(1), frames.Hello([1]), frames.Ping(2))
    assert actions[:-1] == [Reply(frames.Pong(1))]
    assert leaving(actions[-1]) is Code.UNEXPECTED_FRAME


def test_each_action_is_made_when_the_one_before_was_carried_out() -> None:
    """CreateQueue and Receive in one message: the queue is proven between the two."""
    owner, connection = SigningKey.generate(), greeted()
    create = frames.CreateQueue(1, bytes(owner.verify_key), sign(owner), [KEY], "")
    receive = frames.Receive(2, queue_of(owner), 1, limits.MAX_ENVELOPE)
    actions = connection.hear(message(create, receive))
    assert isinstance(next(actions), Create)
    connection.prove(queue_of(owner), 5)
    assert next(actions) == Start(2, Proven(queue_of(owner), 5), 1, limits.MAX_ENVELOPE)


def test_what_follows_the_end_of_a_connection_in_its_message_is_not_heard() -> None:
    connection = greeted()
    actions = connection.hear(message(frames.Ping(1), frames.Ping(2)))
    assert next(actions) == Reply(frames.Pong(1))
    assert connection.leave(ConnectionEvent.DISPLACED)
    assert list(actions) == []


@pytest.mark.parametrize("data", [None, b""])
def test_a_message_that_is_text_or_empty_is_malformed(data: bytes | None) -> None:
    assert leaving(*greeted().hear(data)) is Code.MALFORMED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1", Code.MALFORMED),
        (b"\x90", Code.WRONG_LENGTH),
        (b"\x91\x91\x63", Code.UNKNOWN_TAG),
        (b"\x91\x91\x09", Code.MISSING_FIELD),
        (message(frames.Ping(1)) + b"\x00", Code.TRAILING_BYTES),
        (bytes(limits.MAX_MESSAGE + 1), Code.FRAME_TOO_LARGE),
        (message(frames.Welcome(1, NONCE, 1, 1, 1)), Code.UNKNOWN_TAG),
    ],
)
def test_bytes_that_are_not_a_message_end_the_connection_with_the_rule_they_break(data: bytes, code: Code) -> None:
    assert leaving(*greeted().hear(data)) is code


def test_of_a_message_with_one_broken_frame_nothing_is_carried_out() -> None:
    data = message(frames.Ping(1), frames.Ping(2))
    assert leaving(*greeted().hear(data[:-1] + b"\xc0")) is Code.MALFORMED


def test_ping_is_answered() -> None:
    assert answer(frames.Ping(77)) == Reply(frames.Pong(77))


# --- Proofs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_signature_for_any_of_our_origins_proves_the_queue_of_its_key(origin: str) -> None:
    owner = SigningKey.generate()
    action = answer(open_frame(owner, sign(owner, origin)))
    assert action == Prove(7, queue_of(owner), bytes(owner.verify_key))


def test_creating_a_queue_names_its_first_keys_and_the_code() -> None:
    owner = SigningKey.generate()
    action = answer(frames.CreateQueue(8, bytes(owner.verify_key), sign(owner), [KEY], "please"))
    assert action == Create(8, queue_of(owner), bytes(owner.verify_key), [KEY], "please")
    assert "please" not in repr(action)


def test_a_signature_for_another_origin_nonce_or_key_proves_nothing() -> None:
    owner, other = SigningKey.generate(), SigningKey.generate()
    foreign = other.sign(owner_challenge(ORIGINS[0], NONCE, queue_of(owner))).signature
    for signature in (sign(owner, "https://evil.example"), sign(owner, nonce=bytes(32)), foreign, bytes(64)):
        assert failure(answer(open_frame(owner, signature))) is Code.BAD_SIGNATURE
        create = frames.CreateQueue(7, bytes(owner.verify_key), signature, [], "")
        assert failure(answer(create)) is Code.BAD_SIGNATURE


def test_a_small_order_owner_key_proves_nothing() -> None:
    # The identity point: libraries that accept it verify this signature over every message.
    identity = bytes([1]) + bytes(31)
    assert failure(answer(frames.OpenQueue(7, identity, identity + bytes(32)))) is Code.BAD_SIGNATURE


def test_a_connection_proves_at_most_sixteen_queues_and_may_prove_one_again() -> None:
    connection = greeted()
    owners = [SigningKey.generate() for _ in range(limits.MAX_QUEUES_PER_CONNECTION + 1)]
    for number, owner in enumerate(owners[:-1]):
        connection.prove(queue_of(owner), number)
    assert [failure(action) for action in hear(connection, open_frame(owners[-1], sign(owners[-1])))] == [
        Code.TOO_MANY_QUEUES
    ]
    assert [type(action) for action in hear(connection, open_frame(owners[0], sign(owners[0])))] == [Prove]
    connection.deleted(queue_of(owners[0]))
    assert [type(action) for action in hear(connection, open_frame(owners[-1], sign(owners[-1])))] == [Prove]


def test_what_only_an_owner_may_do_needs_a_proven_queue() -> None:
    for frame in (
        frames.AddSendKey(1, QUEUE, KEY),
        frames.RevokeSendKey(1, QUEUE, KEY.key_hash),
        frames.DemoteSendKey(1, QUEUE, KEY.key_hash),
        frames.DeleteQueue(1, QUEUE),
        frames.Receive(1, QUEUE, 1, limits.MAX_ENVELOPE),
    ):
        assert failure(answer(frame)) is Code.QUEUE_NOT_PROVEN
    assert leaving(answer(frames.Ack(QUEUE, 0, []))) is Code.QUEUE_NOT_PROVEN


def never(*_: object) -> Never:
    raise AssertionError


def test_who_comes_too_fast_is_told_so_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, costs = SigningKey.generate(), []

    def wait_for(cost: int) -> float:
        costs.append(cost)
        return 1.5

    connection = greeted(wait_for)
    for dear in ("verifies", "name_of"):
        monkeypatch.setattr(f"sottovoce_relay.connection.{dear}", never)
    monkeypatch.setattr(connection, "_share", never)
    create = frames.CreateQueue(1, bytes(owner.verify_key), bytes(64), [], "")
    proofs = hear(connection, open_frame(owner, bytes(64)), create)
    assert [failure(action) for action in proofs] == [Code.TRY_AGAIN] * 2
    item, target = frames.SendItem(QUEUE, SEND_KEY, NAME, Ttl.DAY, b"body"), frames.Target(QUEUE, SEND_KEY, NAME)
    sends = hear(connection, frames.Send(5, [item] * 3), frames.SendMany(6, Ttl.DAY, b"body", [target] * 4))
    late = frames.SendResult(Code.TRY_AGAIN, 1500)
    assert sends == [Reply(frames.SendResults(5, [late] * 3)), Reply(frames.SendResults(6, [late] * 4))]
    assert costs == [20, 20, 3, 4]  # a signature for each origin counts as ten envelopes


def test_what_costs_nothing_is_never_too_fast() -> None:
    connection = greeted(never)
    connection.prove(QUEUE, 1)
    assert hear(connection, frames.Ping(1), frames.DeleteQueue(2, QUEUE)) == [
        Reply(frames.Pong(1)),
        DeleteAll(2, Proven(QUEUE, 1)),
    ]


# --- Owners -------------------------------------------------------------------------------------------------------


def test_an_owner_changes_its_keys_and_deletes_its_queue() -> None:
    connection, proven = greeted(), Proven(QUEUE, 1)
    connection.prove(QUEUE, 1)
    assert hear(
        connection,
        frames.AddSendKey(1, QUEUE, KEY),
        frames.RevokeSendKey(2, QUEUE, KEY.key_hash),
        frames.DemoteSendKey(3, QUEUE, KEY.key_hash),
        frames.DeleteQueue(4, QUEUE),
    ) == [
        AddKey(1, proven, KEY),
        RevokeKey(2, proven, KEY.key_hash),
        DemoteKey(3, proven, KEY.key_hash),
        DeleteAll(4, proven),
    ]
    connection.deleted(QUEUE)
    assert [failure(action) for action in hear(connection, frames.DeleteQueue(5, QUEUE))] == [Code.QUEUE_NOT_PROVEN]


def test_an_owner_receives_once_and_acknowledges_what_it_was_given() -> None:
    connection, receiver = greeted(), Receiver(Mailbox(QUEUE, 1))
    connection.prove(QUEUE, 1)
    receive = frames.Receive(3, QUEUE, 7, limits.MAX_ENVELOPE)
    assert hear(connection, receive) == [Start(3, Proven(QUEUE, 1), 7, limits.MAX_ENVELOPE)]
    connection.started(receiver.delivery)
    subject = envelope(9)
    receiver.committed(QUEUE, [subject])
    assert hear(connection, frames.Ack(QUEUE, 1, [])) == [
        Acknowledge(receiver.delivery, [subject], frames.Acked(QUEUE, 1, []))
    ]
    assert leaving(*hear(connection, receive)) is Code.UNEXPECTED_FRAME


@pytest.mark.parametrize("is_receiving", [True, False])
def test_an_acknowledgement_of_what_was_never_given_ends_the_connection(is_receiving: bool) -> None:
    connection = greeted()
    connection.prove(QUEUE, 1)
    if is_receiving:
        connection.started(Receiver(Mailbox(QUEUE, 1)).delivery)
    assert leaving(*hear(connection, frames.Ack(QUEUE, 1, []))) is Code.BAD_ACK


# --- Senders ------------------------------------------------------------------------------------------------------

SEND_KEY, NAME = SendKey(b"k" * 32), EnvelopeId(b"n" * 16)


@pytest.mark.parametrize("ttl", Ttl)
def test_an_arrival_carries_the_hash_of_its_send_key_and_not_its_id(ttl: Ttl) -> None:
    action = answer(frames.Send(5, [frames.SendItem(QUEUE, SEND_KEY, NAME, ttl, b"body")]))
    door = QUEUE + ids.send_key_hash(SEND_KEY)
    assert action == Take(5, [Arrival(QUEUE, door, name_of(door, NAME), ttl, b"body")], 4)


def test_the_items_of_a_send_keep_their_order_and_count_with_all_their_bytes() -> None:
    bodies = [b"1", b"22", b"333"]
    action = answer(frames.Send(5, [frames.SendItem(QUEUE, SEND_KEY, NAME, Ttl.DAY, body) for body in bodies]))
    assert isinstance(action, Take)
    assert [arrival.body for arrival in action.arrivals] == bodies
    assert action.size == 6


def test_a_body_for_many_queues_is_one_body() -> None:
    queues = [QueueId(bytes([number]) * 16) for number in range(3)]
    action = answer(frames.SendMany(5, Ttl.HOUR, b"body", [frames.Target(queue, SEND_KEY, NAME) for queue in queues]))
    assert isinstance(action, Take)
    assert [arrival.queue for arrival in action.arrivals] == queues
    assert {arrival.ttl for arrival in action.arrivals} == {Ttl.HOUR}
    (shared,) = {arrival.shared for arrival in action.arrivals}
    assert shared is not None
    assert (shared.id, shared.body, shared.pointers, action.size) == (77, b"body", 3, 4)


def test_a_body_for_one_queue_is_its_envelopes_own() -> None:
    action = answer(frames.SendMany(5, Ttl.HOUR, b"body", [frames.Target(QUEUE, SEND_KEY, NAME)]))
    assert isinstance(action, Take)
    assert [(arrival.body, arrival.shared) for arrival in action.arrivals] == [(b"body", None)]


def test_nothing_but_the_events_of_the_table_moves_a_connection() -> None:
    for state in ConnectionState:
        for event in ConnectionEvent:
            connection = new_connection()
            connection.state = state
            assert connection.leave(event) is ((state, event) in CONNECTION)
            assert connection.state is CONNECTION.get((state, event), state)

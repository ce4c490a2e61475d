"""What a connection makes of each frame, without sockets, tasks or a database."""

import pytest
from nacl.signing import SigningKey

from sottovoce_relay.connection import Action, AddKey, Connection, Delete, Leave, Prove, Reply, RevokeKey, Start, Take
from sottovoce_relay.envelopes import Arrival, Page, name_of
from sottovoce_relay.states import CONNECTION, ConnectionEvent, ConnectionState
from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey, Ttl, encode
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash
from sottovoce_wire.records import owner_challenge

NONCE = bytes(range(32))
ORIGINS = ("https://relay.example", "https://other.example")
NOW = 1_800_000_000
KEY = NewSendKey(SendKeyHash(b"h" * 32), KeyClass.CONTACT)


def greeted() -> Connection:
    connection = Connection(NONCE, ORIGINS, limits.MAX_ENVELOPE, lambda: NOW + 0.9)
    assert isinstance(connection.hear(encode(frames.Hello([1]))), Reply)
    return connection


def sign(owner: SigningKey, origin: str = ORIGINS[0], nonce: bytes = NONCE) -> bytes:
    return owner.sign(owner_challenge(origin, nonce, queue_of(owner))).signature


def queue_of(owner: SigningKey) -> QueueId:
    return ids.queue_id_of(bytes(owner.verify_key))


def open_frame(owner: SigningKey, signature: bytes) -> bytes:
    return encode(frames.OpenQueue(7, bytes(owner.verify_key), signature))


def failure(action: Action) -> Code:
    assert isinstance(action, Reply)
    assert isinstance(action.frame, frames.Failed)
    return action.frame.code


def leaving(action: Action) -> Code:
    assert isinstance(action, Leave)
    return action.code


def test_hello_is_answered_with_the_nonce_and_the_limits() -> None:
    connection = Connection(NONCE, ORIGINS, 5000, lambda: NOW)
    assert connection.hear(encode(frames.Hello([9, 1]))) == Reply(frames.Welcome(1, NONCE, 5000, limits.MAX_FRAME, 256))
    assert connection.state is ConnectionState.OPEN


def test_a_client_of_other_versions_is_told_ours() -> None:
    connection = Connection(NONCE, ORIGINS, 5000, lambda: NOW)
    assert leaving(connection.hear(encode(frames.Hello([2])))) is Code.UNSUPPORTED_VERSION


def test_nothing_comes_before_hello() -> None:
    connection = Connection(NONCE, ORIGINS, 5000, lambda: NOW)
    assert leaving(connection.hear(encode(frames.Ping(1)))) is Code.UNEXPECTED_FRAME


def test_hello_comes_once() -> None:
    assert leaving(greeted().hear(encode(frames.Hello([1])))) is Code.UNEXPECTED_FRAME


@pytest.mark.parametrize("data", [None, b""])
def test_a_message_that_is_text_or_empty_is_malformed(data: bytes | None) -> None:
    assert leaving(greeted().hear(data)) is Code.MALFORMED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1", Code.MALFORMED),
        (b"\x91\x63", Code.UNKNOWN_TAG),
        (b"\x91\x09", Code.MISSING_FIELD),
        (encode(frames.Ping(1)) + b"\x00", Code.TRAILING_BYTES),
        (bytes(limits.MAX_FRAME + 1), Code.FRAME_TOO_LARGE),
        (encode(frames.Welcome(1, NONCE, 1, 1, 1)), Code.UNKNOWN_TAG),
    ],
)
def test_bytes_that_are_not_a_client_frame_end_the_connection_with_the_rule_they_break(data: bytes, code: Code) -> None:
    assert leaving(greeted().hear(data)) is code


def test_ping_is_answered() -> None:
    assert greeted().hear(encode(frames.Ping(77))) == Reply(frames.Pong(77))


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_signature_for_any_of_our_origins_proves_the_queue_of_its_key(origin: str) -> None:
    owner = SigningKey.generate()
    action = greeted().hear(open_frame(owner, sign(owner, origin)))
    assert action == Prove(7, queue_of(owner), bytes(owner.verify_key), None)


def test_creating_a_queue_names_its_first_keys() -> None:
    owner = SigningKey.generate()
    frame = frames.CreateQueue(8, bytes(owner.verify_key), sign(owner), [KEY])
    assert greeted().hear(encode(frame)) == Prove(8, queue_of(owner), bytes(owner.verify_key), [KEY])


def test_a_signature_for_another_origin_nonce_or_key_proves_nothing() -> None:
    owner, other = SigningKey.generate(), SigningKey.generate()
    foreign = other.sign(owner_challenge(ORIGINS[0], NONCE, queue_of(owner))).signature
    for signature in (sign(owner, "https://evil.example"), sign(owner, nonce=bytes(32)), foreign, bytes(64)):
        assert failure(greeted().hear(open_frame(owner, signature))) is Code.BAD_SIGNATURE


def test_a_small_order_owner_key_proves_nothing() -> None:
    # The identity point: libraries that accept it verify this signature over every message.
    identity = bytes([1]) + bytes(31)
    frame = frames.OpenQueue(7, identity, identity + bytes(32))
    assert failure(greeted().hear(encode(frame))) is Code.BAD_SIGNATURE


def test_a_connection_proves_at_most_sixteen_queues_and_may_prove_one_again() -> None:
    connection = greeted()
    owners = [SigningKey.generate() for _ in range(limits.MAX_QUEUES_PER_CONNECTION + 1)]
    for owner in owners[:-1]:
        connection.proven(queue_of(owner))
    assert failure(connection.hear(open_frame(owners[-1], sign(owners[-1])))) is Code.TOO_MANY_QUEUES
    assert isinstance(connection.hear(open_frame(owners[0], sign(owners[0]))), Prove)


def test_what_only_an_owner_may_do_needs_a_proven_queue() -> None:
    queue = QueueId(bytes(16))
    for frame in (
        frames.AddSendKey(1, queue, KEY),
        frames.RevokeSendKey(1, queue, KEY.key_hash),
        frames.Receive(1, queue, 1, limits.MAX_ENVELOPE),
    ):
        assert failure(greeted().hear(encode(frame))) is Code.QUEUE_NOT_PROVEN
    assert leaving(greeted().hear(encode(frames.Ack(queue, 0, [])))) is Code.QUEUE_NOT_PROVEN


def test_an_owner_changes_keys_receives_and_acknowledges() -> None:
    connection, queue = greeted(), QueueId(bytes(16))
    connection.proven(queue)
    assert connection.hear(encode(frames.AddSendKey(1, queue, KEY))) == AddKey(1, queue, KEY)
    assert connection.hear(encode(frames.RevokeSendKey(2, queue, KEY.key_hash))) == RevokeKey(2, queue, KEY.key_hash)
    receive = encode(frames.Receive(3, queue, 1, limits.MAX_ENVELOPE))
    start = connection.hear(receive)
    assert isinstance(start, Start)
    assert leaving(connection.hear(receive)) is Code.UNEXPECTED_FRAME
    start.delivery.begin_page()
    start.delivery.take_page(Page((), 0, 0, False, 0, 0))
    action = connection.hear(encode(frames.Ack(queue, 0, [])))
    assert action == Delete(start.delivery, (), frames.Acked(queue, 0, []))


def test_an_acknowledgement_of_what_was_never_given_ends_the_connection() -> None:
    connection, queue = greeted(), QueueId(bytes(16))
    connection.proven(queue)
    assert leaving(connection.hear(encode(frames.Ack(queue, 1, [])))) is Code.BAD_ACK


@pytest.mark.parametrize("ttl", Ttl)
def test_an_arrival_carries_the_hash_of_its_send_key_and_its_end_of_life(ttl: Ttl) -> None:
    queue, key, name = QueueId(b"q" * 16), SendKey(b"k" * 32), EnvelopeId(b"n" * 16)
    action = greeted().hear(encode(frames.Send(5, [frames.SendItem(queue, key, name, ttl, b"body")])))
    door = queue + ids.send_key_hash(key)
    assert action == Take(5, [Arrival(queue, door, name_of(door, name), NOW + ttl.seconds, b"body")])


def test_nothing_but_the_events_of_the_table_moves_a_connection() -> None:
    for state in ConnectionState:
        for event in ConnectionEvent:
            connection = Connection(NONCE, ORIGINS, 5000, lambda: NOW)
            connection.state = state
            assert connection.leave(event) is ((state, event) in CONNECTION)
            assert connection.state is CONNECTION.get((state, event), state)

"""Nothing that holds a secret shows it: not by repr, not by str, not in an exception."""

import pytest

from sottovoce.crypto import chain_key, errors, pq_ratchet, primitives, ratchet_state, root_key
from sottovoce.crypto.agreement import Handshake, SessionKeys, initiate
from sottovoce.crypto.errors import CryptoRefusal
from sottovoce.crypto.identity import DeviceKeys, OwnerKey, RootKey
from sottovoce.crypto.message import Expected, Route
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys
from sottovoce.crypto.primitives import OwnExchangeKey, OwnKemKey, OwnSealingKey, PeerExchangeKey, SigningKey
from sottovoce.crypto.ratchet import Decrypted, Ratchet, SkippedKey, windows_of
from sottovoce.crypto.sealed import FirstMessage

SECRET = b"Secret secret secret secret 1234"
MARKS = ("Secret", SECRET.hex(), "b'", 'b"', "\\x")


def holders() -> list[object]:
    exchange, kem = OwnExchangeKey(SECRET), OwnKemKey(SECRET + SECRET)
    keys = SessionKeys(*(SECRET,) * 6)
    initiator = Ratchet.initiator(keys, exchange.public, 0)
    initiator.encrypt(SECRET, 0)
    route, skipped = Route(SECRET + SECRET), SkippedKey(1, 0, SECRET[:8], SECRET, SECRET)
    chain, received = chain_key.SendingChain(SECRET, 0), chain_key.ReceivingChain(SECRET, 0)
    whispers = ratchet_state.Whispers(route, SECRET, 0, chain)
    return [
        RootKey.from_entropy(SECRET),
        SigningKey(SECRET),
        DeviceKeys.unpack(SECRET + SECRET),
        OwnerKey.from_seed(SECRET),
        exchange,
        kem,
        OwnSealingKey(SECRET + SECRET + SECRET),
        OneTimePrekey(1, exchange),
        keys,
        root_key.SessionRootKey(SECRET),
        root_key.SessionRootKey(SECRET).step(SECRET, SECRET, 0),
        root_key.Step(root_key.SessionRootKey(SECRET), SECRET, route, SECRET),
        chain,
        received,
        primitives.AeadKey(SECRET),
        route,
        skipped,
        Decrypted(SECRET, False, (skipped,), Expected(1, 0), tuple(windows_of([skipped], {})), (SECRET[:8],)),
        whispers,
        ratchet_state.Unanswered(exchange),
        ratchet_state.StepDue(PeerExchangeKey(exchange.public), 0, whispers),
        ratchet_state.Sending(exchange, chain, whispers),
        ratchet_state.Receiving(1, SECRET + bytes(4), 0, route, received, 8, received),
        pq_ratchet.Offering(kem, pq_ratchet.Sending(SECRET, 0, 0), pq_ratchet.Collected(1, SECRET)),
        pq_ratchet.Due(SECRET),
        pq_ratchet.Answering(SECRET, pq_ratchet.Sending(SECRET, 0, 0)),
        initiator,
        Ratchet.responder(keys, exchange, 0),
    ]


@pytest.mark.parametrize("holder", holders(), ids=lambda holder: type(holder).__name__)
def test_a_holder_of_a_secret_shows_nothing(holder: object) -> None:
    for shown in (repr(holder), str(holder), f"{[holder]}"):
        assert not any(mark in shown for mark in MARKS)


def test_prekeys_and_handshakes_show_nothing(
    bob_prekeys: OwnPrekeys,
    bob_peer: PeerPrekeys,
    alice: DeviceKeys,
    alice_root: RootKey,
    bob: DeviceKeys,
    alice_list: bytes,
) -> None:
    handshake: Handshake = initiate(alice, alice_root.account_id, bob_peer, bob.identity_public, None, 1)[0]
    first = FirstMessage(handshake, alice_root.public, alice_list, b"message")
    for shown in map(repr, (bob_prekeys, bob_peer, handshake, first)):
        assert not any(mark in shown for mark in MARKS)


def test_a_refusal_says_its_reason_and_no_bytes() -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        OwnExchangeKey(SECRET[:31])
    assert str(refusal.value) == "bad_key: a secret has the wrong length"
    assert refusal.value.__cause__ is None
    assert not any(mark in repr(refusal.value) for mark in MARKS)


def test_a_refusal_hides_where_it_came_from() -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        Ratchet.unpack(SECRET)
    assert refusal.value.__suppress_context__


def test_every_reason_has_its_own_name() -> None:
    assert [reason.name.lower() for reason in errors.Reason] == [reason.value for reason in errors.Reason]

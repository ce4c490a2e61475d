"""What each type of test means for the project's own code: fields in, functions of `sottovoce`, fields out.

An operation raises CryptoRefusal. A claimed value that is not the derived one is refused here.
"""

import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest.mock import patch

from sottovoce import directory as client_directory
from sottovoce import errors
from sottovoce.crypto import (
    agreement,
    attachment,
    fingerprint,
    identity,
    message,
    phrase,
    pq_ratchet,
    prekeys,
    primitives,
    sealed,
    sender_key,
)
from sottovoce.crypto.agreement import Handshake, SessionKeys
from sottovoce.crypto.attachment import Pointer
from sottovoce.crypto.chain_key import ReceivingChain
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.fingerprint import SafetyCode
from sottovoce.crypto.identity import DeviceKeys, RootKey
from sottovoce.crypto.message import Expected, Route, routing_tag
from sottovoce.crypto.pq_ratchet import Answering, Collected, Due, Fragment, Offering, Sending
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys
from sottovoce.crypto.primitives import (
    OwnExchangeKey,
    OwnKemKey,
    OwnSealingKey,
    PeerExchangeKey,
    PeerKemKey,
    PeerSealingKey,
    SigningKey,
)
from sottovoce.crypto.ratchet import Decrypted, Ratchet, SkippedKey
from sottovoce.crypto.root_key import SessionRootKey
from sottovoce.crypto.sealed import FirstMessage
from sottovoce.crypto.sender_key import OwnSenderKey, PeerSenderKey
from sottovoce.directory import Directory
from sottovoce_keyserver import directory as keyserver
from sottovoce_wire import directory as wire
from sottovoce_wire import ids, labels, padding, records
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId, GroupId, SendKey
from sottovoce_wire.records import DeviceEntry, DeviceList
from tests.sottovoce.crypto.windows import announced

from .form import Case, Entry, Operation, Outputs, attachment_bytes, delivered

Refusal = CryptoRefusal


def reason_of(refusal: CryptoRefusal) -> str:
    """The name of a refusal's reason."""
    return refusal.reason.value


def _claim(derived: bytes, claimed: bytes, reason: Reason) -> Outputs:
    if derived != claimed:
        raise CryptoRefusal(reason, "the claimed value is another one")
    return {}


# --- Labels, ids, padding ---------------------------------------------------------------------------------------


def _label(case: Case) -> Outputs:
    return _claim(labels.label(case.text("name")), case.bytes("label"), Reason.MALFORMED)


def _account_id(case: Case) -> Outputs:
    return _claim(ids.account_id_of(case.bytes("rootKey")), case.bytes("accountId"), Reason.WRONG_ACCOUNT)


def _device_id(case: Case) -> Outputs:
    derived = ids.device_id_of(case.bytes("signingKey"), case.bytes("identityKey"))
    return _claim(derived, case.bytes("deviceId"), Reason.WRONG_DEVICE)


def _queue_id(case: Case) -> Outputs:
    return _claim(ids.queue_id_of(case.bytes("ownerKey")), case.bytes("queueId"), Reason.MALFORMED)


def _send_key_hash(case: Case) -> Outputs:
    derived = ids.send_key_hash(SendKey(case.bytes("sendKey")))
    return _claim(derived, case.bytes("sendKeyHash"), Reason.MALFORMED)


def _pad(case: Case) -> Outputs:
    return {"padded": padding.pad(case.bytes("content"), minimum=case.number("minimum"))}


def _padded_length(case: Case) -> Outputs:
    return {"paddedLength": padding.padded_length(case.number("length"), minimum=case.number("minimum"))}


def _unpad(case: Case) -> Outputs:
    try:
        return {"content": padding.unpad(case.bytes("padded"))}
    except WireError as error:
        raise CryptoRefusal(Reason.MALFORMED, error.detail) from None


# --- Keys -------------------------------------------------------------------------------------------------------


def _exchange_key(case: Case) -> Outputs:
    PeerExchangeKey(case.bytes("publicKey"))
    return {}


def _exchange(case: Case) -> Outputs:
    shared = OwnExchangeKey(case.bytes("secretKey")).exchange(PeerExchangeKey(case.bytes("publicKey")))
    return {"sharedSecret": shared}


def _signing_key(case: Case) -> Outputs:
    primitives.check_signing_key(case.bytes("publicKey"))
    return {}


def _signature(case: Case) -> Outputs:
    primitives.verify(case.bytes("publicKey"), case.bytes("message"), case.bytes("signature"))
    return {}


def _kem_key(case: Case) -> Outputs:
    PeerKemKey(case.bytes("publicKey"))
    return {}


def _decapsulate(case: Case) -> Outputs:
    return {"sharedSecret": OwnKemKey(case.bytes("seed")).decapsulate(case.bytes("ciphertext"))}


def _sealing_key(case: Case) -> Outputs:
    PeerSealingKey(case.bytes("publicKey"))
    return {}


# --- Identity ---------------------------------------------------------------------------------------------------


def _root_key(case: Case) -> Outputs:
    root = RootKey.from_entropy(case.bytes("entropy"))
    return {"rootKey": root.public, "accountId": root.account_id}


def _list_fields(found: DeviceList) -> Outputs:
    return {
        "accountId": found.account_id,
        "version": found.version,
        "time": found.time,
        "flag": int(found.flag),
        "deviceIds": [bytes(device.device_id) for device in found.devices],
        "listHash": records.device_list_hash(found.pack()),
    }


def _device_list(case: Case) -> Outputs:
    return _list_fields(identity.open_device_list(case.bytes("rootKey"), case.bytes("record")))


def _succession(case: Case) -> Outputs:
    return _list_fields(identity.check_successor(case.bytes("known"), case.bytes("record"), case.bytes("rootKey")))


def _username_claim(case: Case) -> Outputs:
    claim = identity.open_username_claim(case.bytes("rootKey"), case.bytes("record"))
    return {"time": claim.time, "username": claim.username}


def _queue_owner(case: Case) -> Outputs:
    owner = case.bytes("ownerKey")
    statement = records.owner_challenge(case.text("origin"), case.bytes("nonce"), ids.queue_id_of(owner))
    primitives.verify(owner, statement, case.bytes("signature"))
    return {}


# --- Prekeys ----------------------------------------------------------------------------------------------------


def _entry(case: Case) -> DeviceEntry:
    return DeviceEntry(case.bytes("signingKey"), case.bytes("identityKey"), bytes(64))


def _prekey_record(case: Case) -> Outputs:
    account = AccountId(case.bytes("accountId"))
    found = prekeys.open_prekeys(_entry(case), account, case.bytes("record"), case.number("now"))
    return {
        "recordId": found.record.record_id,
        "created": found.record.created,
        "expires": found.record.expires,
        "recordHash": found.record_hash,
    }


def _contact_record(case: Case) -> Outputs:
    account = AccountId(case.bytes("accountId"))
    found = prekeys.open_contact_record(_entry(case), account, case.bytes("record"), case.number("now"))
    return {
        "sequence": found.sequence,
        "created": found.created,
        "expires": found.expires,
        "queueId": found.queue,
        "sendKey": found.send_key,
        "origin": found.origin,
    }


# --- Handshake --------------------------------------------------------------------------------------------------


def _handshake(case: Case) -> Outputs:
    found = Handshake.parse(case.bytes("handshake"))
    return {
        "generation": found.generation,
        "accountId": found.account_id,
        "deviceId": found.device_id,
        "identityKey": found.identity_key,
        "ephemeralKey": found.ephemeral_key,
        "recordId": found.record_id,
        "oneTimeId": found.one_time_id,
        "digest": found.digest,
    }


def _session_fields(found: SessionKeys) -> Outputs:
    return {
        "sessionId": found.session_id,
        "rootKey": found.root_key,
        "headerKeyA": found.header_key_a,
        "tagKeyA": found.tag_key_a,
        "headerKeyB": found.header_key_b,
        "tagKeyB": found.tag_key_b,
    }


def _device(case: Case) -> DeviceKeys:
    return DeviceKeys(SigningKey(case.bytes("signingSeed")), OwnExchangeKey(case.bytes("identitySecret")))


def _own_prekeys(case: Case) -> OwnPrekeys:
    return OwnPrekeys(
        OwnExchangeKey(case.bytes("signedPrekeySecret")),
        OwnKemKey(case.bytes("pqPrekeySeed")),
        OwnSealingKey(case.bytes("sealingSeeds")),
        case.bytes("record"),
    )


def _one_time_secret(case: Case) -> OneTimePrekey | None:
    if case.is_null("oneTimeId"):
        return None
    return OneTimePrekey(case.number("oneTimeId"), OwnExchangeKey(case.bytes("oneTimeSecret")))


def _responded(case: Case, handshake: Handshake) -> SessionKeys:
    account = AccountId(case.bytes("accountId"))
    return agreement.respond(_device(case), account, _own_prekeys(case), _one_time_secret(case), handshake)


def _respond(case: Case) -> Outputs:
    return _session_fields(_responded(case, Handshake.parse(case.bytes("handshake"))))


@contextmanager
def _fixed_randomness(ephemeral_secret: bytes, kem: tuple[bytes, bytes]) -> Iterator[None]:
    """The library draws the KEM's randomness itself: what it would have drawn stands in the vector."""
    ephemeral = OwnExchangeKey(ephemeral_secret)
    with (
        patch.object(OwnExchangeKey, "generate", lambda: ephemeral),
        patch.object(PeerKemKey, "encapsulate", lambda _: kem),
    ):
        yield


def _initiate(case: Case) -> Outputs:
    entry = DeviceEntry(case.bytes("peerSigningKey"), case.bytes("peerIdentityKey"), bytes(64))
    account = AccountId(case.bytes("peerAccountId"))
    peer = prekeys.open_prekeys(entry, account, case.bytes("record"), case.number("now"))
    one_time = None if case.is_null("oneTimeId") else (case.number("oneTimeId"), case.bytes("oneTimeKey"))
    own_account = AccountId(case.bytes("accountId"))
    with _fixed_randomness(case.bytes("ephemeralSecret"), (case.bytes("kemSecret"), case.bytes("kemCiphertext"))):
        handshake, found = agreement.initiate(
            _device(case), own_account, peer, entry.identity_key, one_time, case.number("generation")
        )
    return {"handshake": handshake.pack(), **_session_fields(found)}


# --- Sealed first message ---------------------------------------------------------------------------------------


def _opened(case: Case) -> bytes:
    account, device = AccountId(case.bytes("accountId")), DeviceId(_device(case).device_id)
    return sealed.open_sealed(_own_prekeys(case), account, device, case.bytes("envelope"))


def _sealed(case: Case) -> Outputs:
    return {"content": _opened(case)}


def _first_message(case: Case) -> Outputs:
    first = FirstMessage.parse(_opened(case))
    found, entry = sealed.open_sender(first)
    return {
        "senderAccountId": found.account_id,
        "senderDeviceId": entry.device_id,
        "listVersion": found.version,
        "message": first.message,
        "sessionId": _responded(case, first.handshake).session_id,
    }


# --- Ratchet keys -----------------------------------------------------------------------------------------------


def _root_step(case: Case) -> Outputs:
    shared = OwnExchangeKey(case.bytes("ownSecret")).exchange(PeerExchangeKey(case.bytes("peerKey")))
    step = SessionRootKey(case.bytes("rootKey")).step(shared, case.bytes("pqSecret"), case.number("epoch"))
    return {
        "nextRootKey": step.root.key,
        "chainKey": step.chain_key,
        "nextHeaderKey": step.next_route.keys[:32],
        "nextTagKey": step.next_route.keys[32:],
        "ephemeralChainKey": step.ephemeral_key,
    }


def _chain(case: Case) -> Outputs:
    chain = ReceivingChain(case.bytes("chainKey"), 0).walk(case.number("number"))[0]
    return {"messageKey": chain.message_key(), "nextChainKey": chain.after().key}


def _message_body(case: Case) -> Outputs:
    key = case.bytes("messageKey")
    nonce, ciphertext = case.bytes("nonce"), case.bytes("ciphertext")
    return {"padded": primitives.decrypt(key, nonce, ciphertext, case.bytes("associatedData"))}


# --- Ratchet ----------------------------------------------------------------------------------------------------


def _keys(case: Case) -> SessionKeys:
    names = ("sessionId", "rootKey", "headerKeyA", "tagKeyA", "headerKeyB", "tagKeyB")
    return SessionKeys(*(case.bytes(name) for name in names))


class _Side:
    """One side of a session, with its table of tags and its skipped keys."""

    def __init__(self, ratchet: Ratchet) -> None:
        self._restore(ratchet)

    def _restore(self, ratchet: Ratchet) -> None:
        self.ratchet = ratchet
        self._skipped: dict[tuple[int, int], SkippedKey] = {}
        self.tags = announced(ratchet.expected())

    def open(self, message: bytes, expected: Expected | None, now: int) -> Decrypted:
        """What a message says; nothing is kept of it outside the ratchet."""
        if expected is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "no header key opens the message")
        found = lambda chain, number: self._skipped.get((chain, number))  # noqa: E731 - a store in a line
        return self.ratchet.decrypt(message, expected, found, lambda _: None, now)

    def find(self, message: bytes) -> Expected | None:
        """What a message is, by its tag or by its header."""
        return self.tags.get(routing_tag(message)) or self.ratchet.recognise(message)

    def read(self, message: bytes, expected: Expected | None, now: int) -> bytes:
        """The body of a message; the table and the skipped keys are brought up to date."""
        opened = self.open(message, expected, now)
        for tag in opened.vanished:
            self.tags.pop(tag, None)
        self.tags.update(announced(opened.appeared))
        self._skipped.update({(key.chain, key.number): key for key in opened.skipped})
        if opened.used is not None:
            del self._skipped[opened.used.chain, opened.used.number]
        return opened.body

    def take(self, step: Case, given: list[bytes]) -> bytes:
        """A step of a session: what it gives."""
        match step.text("do"):
            case "send":
                with _drawn(step):
                    return self.ratchet.encrypt(step.bytes("body"), step.number("at"))
            case "sendEphemeral":
                with _drawn(step):
                    return self.ratchet.encrypt_ephemeral(step.bytes("body"))[0]
            case "restart":
                self.ratchet = Ratchet.unpack(self.ratchet.pack())
                return b""
            case "restore":
                self._restore(Ratchet.unpack(step.bytes("state")))
                return b""
            case "receiveAs":
                expected = Expected(step.number("chain"), step.number("number"), bool(step.number("ephemeral")))
                return self.read(step.bytes("message"), expected, step.number("at"))
            case "receive":
                return self._receive(step.bytes("message"), step.number("at"))
            case _:
                with _encapsulated(step):
                    return self._receive(delivered(step, given), step.number("at"))

    def _receive(self, message: bytes, now: int) -> bytes:
        return self.read(message, self.find(message), now)

    def result(self, gave: bytes, refused: str | None) -> Entry:
        """What stands in a vector after a step. The table must be the one that a restart would build."""
        rebuilt = {**announced(self.ratchet.expected()), **{key.tag: None for key in self._skipped.values()}}
        assert set(self.tags) == set(rebuilt)
        return {
            "gave": gave,
            "refused": refused,
            "epoch": self.ratchet.epoch,
            "tags": primitives.sha256(*sorted(self.tags)),
            "state": primitives.sha256(self.ratchet.pack()),
        }


@contextmanager
def _drawn(step: Case) -> Iterator[None]:
    """What a sender draws: r, and what stands in the step only where it is needed."""
    with (
        patch.object(message, "new_nonce", lambda: step.bytes("nonce")),
        patch.object(OwnExchangeKey, "generate_for_a_turn", lambda: OwnExchangeKey(step.bytes("ratchetSecret"))),
        patch.object(OwnKemKey, "generate", lambda: OwnKemKey(step.bytes("kemSeed"))),
    ):
        yield


@contextmanager
def _encapsulated(step: Case) -> Iterator[None]:
    drawn = (step.bytes("kemSecret"), step.bytes("kemCiphertext"))
    with patch.object(PeerKemKey, "encapsulate", lambda _: drawn):
        yield


def _responding(case: Case) -> _Side:
    bob = _Side(Ratchet.responder(_keys(case), OwnExchangeKey(case.bytes("signedPrekeySecret")), 0))
    for item in case.items("history"):
        if item[:1] == b"\x00":
            with patch.object(OwnExchangeKey, "generate_for_a_turn", lambda secret=item[1:]: OwnExchangeKey(secret)):
                bob.ratchet.encrypt(b"", 0)
        else:
            bob.read(item, bob.find(item), 0)
    return bob


def _ratchet(case: Case) -> Outputs:
    expected = Expected(case.number("chain"), case.number("number"), bool(case.number("ephemeral")))
    return {"body": _responding(case).open(case.bytes("message"), expected, 0).body}


def _expected_tags(case: Case) -> Outputs:
    return {"tags": sorted(_responding(case).tags)}


def _found(case: Case) -> Outputs:
    found = _responding(case).find(case.bytes("message"))
    if found is None:
        raise CryptoRefusal(Reason.NOT_AUTHENTIC, "no header key opens the message")
    return {"chain": found.chain, "number": found.number, "ephemeral": int(found.is_ephemeral)}


def _routing_tag(case: Case) -> Outputs:
    route = Route(bytes(32) + case.bytes("tagKey"))
    return {"tag": route.tag(case.number("number"), is_ephemeral=bool(case.number("ephemeral")))}


def _session(case: Case) -> Outputs:
    keys, spk = _keys(case), OwnExchangeKey(case.bytes("signedPrekeySecret"))
    initiator = Ratchet.initiator(keys, spk.public, case.number("began"))
    sides = {"A": _Side(initiator), "B": _Side(Ratchet.responder(keys, spk, case.number("began")))}
    results, given, steps = list[Entry](), list[bytes](), case.entries("steps")
    for step in steps:
        side, gave, refused = sides[step.text("side")], b"", None
        try:
            gave = side.take(step, given)
        except CryptoRefusal as refusal:
            if len(results) == len(steps) - 1:
                raise
            refused = refusal.reason.value
        given.append(gave)
        results.append(side.result(gave, refused))
    return {"results": results}


def _ratchet_state(case: Case) -> Outputs:
    ratchet = Ratchet.unpack(case.bytes("state"))
    return {"epoch": ratchet.epoch, "tags": sorted(announced(ratchet.expected())), "packed": ratchet.pack()}


# --- Post-quantum ratchet ---------------------------------------------------------------------------------------


def _fragment(case: Case) -> Outputs:
    field, body = pq_ratchet.split(case.bytes("content"))
    if field == pq_ratchet.NO_FRAGMENT:
        return {"epoch": None, "first": None, "data": b"", "body": body}
    fragment = Fragment.read(field)
    return {"epoch": fragment.epoch, "first": fragment.first, "data": fragment.data, "body": body}


def _blocks(case: Case) -> bytes:
    blocks = case.bytes("blocks")
    return struct.pack(">BIB", len(blocks) // pq_ratchet.BLOCK, 1, case.number("first")) + blocks


def _offered_key(case: Case) -> Outputs:
    state = pq_ratchet.take(pq_ratchet.begin(0, is_initiator=False), 0, _blocks(case), 0)
    assert isinstance(state, Answering)
    return {}


def _epoch_secret(case: Case) -> Outputs:
    own = OwnKemKey(case.bytes("seed"))
    offering = Offering(own, Sending(own.public, 0, 0), Collected.empty(1088))
    state = pq_ratchet.take(offering, 0, _blocks(case), 0)
    assert isinstance(state, Due)
    return {"secret": state.secret}


def _pq_state_of(case: Case) -> pq_ratchet.State:
    """Packed states are read as part of a session's, which gives the one refusal for what is too short or too long."""
    try:
        return pq_ratchet.unpack(case.bytes("state"))
    except struct.error:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed state has the wrong length") from None


def _carried(case: Case) -> Outputs:
    state, fields, before = _pq_state_of(case), list[bytes](), case.number("messagesBefore")
    with patch.object(OwnKemKey, "generate", lambda: OwnKemKey(case.bytes("kemSeed"))):
        for index, item in enumerate(case.items("messages")):
            at, length = int.from_bytes(item[:8], "big"), int.from_bytes(item[8:], "big")
            room = padding.padded_length(length + 1) - length - 2
            field, state = pq_ratchet.give(state, case.number("epoch"), before + index, room, at)
            fields.append(field)
    return {"fields": fields, "packed": pq_ratchet.pack(state)}


def _collected(case: Case) -> Outputs:
    state = _pq_state_of(case)
    with _encapsulated(case):
        for item in case.items("fields"):
            field, _ = pq_ratchet.split(item)
            state = pq_ratchet.take(state, case.number("epoch"), field, case.number("now"))
    return {"packed": pq_ratchet.pack(state)}


def _pq_state(case: Case) -> Outputs:
    return {"packed": pq_ratchet.pack(_pq_state_of(case))}


# --- Sender keys ------------------------------------------------------------------------------------------------


def _membership_hash(case: Case) -> Outputs:
    members = [(AccountId(member[:-1]), member[-1]) for member in case.items("members")]
    return {"membershipHash": sender_key.membership_hash(GroupId(case.bytes("groupId")), case.number("epoch"), members)}


def _peer_key(case: Case) -> PeerSenderKey:
    return PeerSenderKey.accept(case.bytes("distribution"), DeviceId(case.bytes("deviceId")))


def _distribution(case: Case) -> Outputs:
    found = _peer_key(case)
    tags = sorted(announced(found.expected()))
    return {"chainId": found.chain_id, "groupId": found.group_id, "epoch": found.epoch, "tags": tags}


class _Member:
    """A member that reads another device's chain, with its table of tags and its skipped keys."""

    def __init__(self, peer: PeerSenderKey, case: Case) -> None:
        self.peer = peer
        self._memberships = {int.from_bytes(item[:4], "big"): item[4:] for item in case.items("memberships")}
        self._skipped: dict[int, SkippedKey] = {}
        self.tags = announced(peer.expected())

    def open(self, message: bytes, expected: Expected | None) -> Decrypted:
        """What a message says; nothing is kept of it outside the chain."""
        if expected is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is not of this chain")
        found = lambda _, number: self._skipped.get(number)  # noqa: E731 - a store in a line
        return self.peer.decrypt(message, expected, self._memberships.get, found, lambda _: None)

    def read(self, message: bytes) -> None:
        """Read a message, and bring the table and the skipped keys up to date."""
        opened = self.open(message, self.peer.recognise(message))
        for tag in opened.vanished:
            self.tags.pop(tag, None)
        self.tags.update(announced(opened.appeared))
        self._skipped |= {key.number: key for key in opened.skipped}
        if opened.used is not None:
            del self._skipped[opened.used.number]

    def table(self) -> bytes:
        """The hash of the table, which must be the one that a restart would build."""
        rebuilt = {**announced(self.peer.expected()), **{key.tag: None for key in self._skipped.values()}}
        assert set(self.tags) == set(rebuilt)
        return primitives.sha256(*sorted(self.tags))


def _group_message(case: Case) -> Outputs:
    member = _Member(_peer_key(case), case)
    for received in case.items("history"):
        member.read(received)
    asked = Expected(1, case.number("number"), bool(case.number("ephemeral")))
    return {"content": member.open(case.bytes("message"), asked).body}


def _group_tags(case: Case) -> Outputs:
    member = _Member(PeerSenderKey.unpack(case.bytes("state")), case)
    tables = [member.table()]
    for received in case.items("history"):
        member.read(received)
        tables.append(member.table())
    return {"tables": tables, "tags": sorted(member.tags), "packed": member.peer.pack()}


def _own_sender_key(case: Case) -> Outputs:
    own, content = OwnSenderKey.unpack(case.bytes("state")), case.bytes("content")
    epoch, membership = case.number("epoch"), case.bytes("membershipHash")
    with patch.object(message, "new_nonce", iter(case.items("nonces")).__next__):
        ephemeral, _ = own.encrypt_ephemeral(content, epoch, membership)
        in_order = own.encrypt(content, epoch, membership)
    return {"ephemeral": ephemeral, "message": in_order, "distribution": own.distribution(), "packed": own.pack()}


def _peer_sender_key(case: Case) -> Outputs:
    peer = PeerSenderKey.unpack(case.bytes("state"))
    return {"chainId": peer.chain_id, "tags": sorted(announced(peer.expected())), "packed": peer.pack()}


# --- Attachments ------------------------------------------------------------------------------------------------


def _pointer(case: Case) -> Outputs:
    found = Pointer.parse(case.bytes("pointer"))
    return {"size": found.size, "paddedSize": found.padded_size, "containerSize": found.container_size}


def _attachment(case: Case) -> Outputs:
    container = attachment_bytes(case)
    return {"content": attachment.open_attachment(Pointer.parse(case.bytes("pointer")), container)}


def _attachment_range(case: Case) -> Outputs:
    pointer, container = Pointer.parse(case.bytes("pointer")), attachment_bytes(case)
    read_at = lambda offset, length: container[offset : offset + length]  # noqa: E731 - a server in a line
    return {"content": attachment.read_range(pointer, read_at, case.number("start"), case.number("end"))}


# --- Directory --------------------------------------------------------------------------------------------------

#: What the codes of a keyserver are called among the reasons of refusals.
_CODES = {
    Code.BAD_REQUEST: Reason.MALFORMED,
    Code.BAD_REQUEST_SIGNATURE: Reason.BAD_SIGNATURE,
    Code.UNKNOWN_DEVICE: Reason.NOT_LISTED,
    Code.BAD_RECORD: Reason.BAD_RECORD,
}
_KEYSERVER = "https://keys.example"


@contextmanager
def _coded() -> Iterator[None]:
    """A keyserver's refusal as one of the core's."""
    try:
        yield
    except WireError as error:
        raise CryptoRefusal(_CODES[error.code], error.detail) from None


def _directory_signer(case: Case) -> Outputs:
    headers = {
        wire.HEADER_ACCOUNT: case.text("account"),
        wire.HEADER_DEVICE: case.text("device"),
        wire.HEADER_COUNTER: case.text("counter"),
        wire.HEADER_SIGNATURE: case.text("signature"),
    }
    with _coded():
        found = keyserver.parse_signer(headers.get)
    return {
        "accountId": found.account_id,
        "deviceId": found.device_id,
        "counterValue": found.counter,
        "signatureValue": found.signature,
    }


def _directory_request(case: Case) -> Outputs:
    signed = records.directory_request(
        case.text("origin"),
        AccountId(case.bytes("accountId")),
        DeviceId(case.bytes("deviceId")),
        case.number("counter"),
        case.text("method"),
        case.text("path"),
        case.bytes("body"),
    )
    primitives.verify(case.bytes("signingKey"), signed, case.bytes("signature"))
    return {}


def _registration(case: Case) -> Outputs:
    signer = keyserver.Signer(AccountId(case.bytes("accountId")), DeviceId(case.bytes("deviceId")), 1, bytes(64))
    with _coded():
        register = wire.decode(wire.Register, case.text("body").encode())
        device_list = keyserver.open_device_list(register, signer.account_id)
        keyserver.signing_key_in(device_list, signer.device_id)
        found = keyserver.check_registration(register, device_list, signer, case.number("now"))
    return {
        "listVersion": device_list.version,
        "recordId": found.publication.record_id,
        "sequence": found.publication.sequence,
        "expires": found.publication.expires,
        "oneTimeIds": [prekey.id.to_bytes(4, "big") for prekey in found.publication.one_time_prekeys],
        "username": "" if found.name is None else found.name.username,
    }


_T = TypeVar("_T")


def _asked(answer: bytes, look_up: Callable[[Directory], Coroutine[None, None, _T]]) -> _T:
    """What a client takes from an answer. It waits for nothing else, so that one step is all of it."""

    async def ask(self: Directory, _method: str, _path: str, _body: bytes, kind: type[wire.Body]) -> wire.Body:
        return self._parse(kind, answer)

    client = Directory.__new__(Directory)
    client._origin = _KEYSERVER
    with patch.object(Directory, "_ask", ask), patch.object(client_directory, "_untrusted", lambda refusal: refusal):
        try:
            look_up(client).send(None)
        except StopIteration as done:
            result: _T = done.value
            return result
        except errors.WrongServer:
            raise CryptoRefusal(Reason.MALFORMED, "the answer is none") from None
        except errors.UntrustedKeys:
            raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the answer is about another account") from None
    raise AssertionError


def _bundles(case: Case) -> Outputs:
    account_id, now = AccountId(case.bytes("accountId")), case.number("now")
    peer, found = _asked(case.text("body").encode(), lambda client: client.bundles(account_id, None, now))
    one_time = [bundle.one_time for bundle in found]
    return {
        "listVersion": DeviceList.parse(peer.device_list[:-64]).version,
        "devices": [bytes(bundle.entry.device_id) for bundle in found],
        "queues": [bytes(bundle.address.queue) for bundle in found],
        "oneTimeIds": [b"" if each is None else each[0].to_bytes(4, "big") for each in one_time],
    }


def _found_name(case: Case) -> Outputs:
    return {"accountId": _asked(case.text("body").encode(), lambda client: client.find(case.text("username")))}


# --- Recovery phrase, safety number -----------------------------------------------------------------------------


def _spell_phrase(case: Case) -> Outputs:
    return {"phrase": phrase.spell(case.bytes("entropy"))}


def _read_phrase(case: Case) -> Outputs:
    return {"entropy": phrase.read(case.text("phrase"))}


def _safety_number(case: Case) -> Outputs:
    one, other = AccountId(case.bytes("one")), AccountId(case.bytes("other"))
    return {"digits": fingerprint.safety_number(one, other)}


def _safety_code(case: Case) -> Outputs:
    found = SafetyCode.parse(case.bytes("code"))
    return {
        "own": found.own,
        "other": found.other,
        "ownVersion": found.own_list.version,
        "ownHash": found.own_list.digest,
        "otherVersion": found.other_list.version,
        "otherHash": found.other_list.digest,
    }


def _safety_comparison(case: Case) -> Outputs:
    found = fingerprint.compare(SafetyCode.parse(case.bytes("scanned")), SafetyCode.parse(case.bytes("own")))
    return {"mine": found.mine.name, "theirs": found.theirs.name, "verdict": found.verdict.name}


OPERATIONS: dict[str, Operation] = {
    "label": _label,
    "accountId": _account_id,
    "deviceId": _device_id,
    "queueId": _queue_id,
    "sendKeyHash": _send_key_hash,
    "pad": _pad,
    "paddedLength": _padded_length,
    "unpad": _unpad,
    "exchangeKey": _exchange_key,
    "exchange": _exchange,
    "signingKey": _signing_key,
    "signature": _signature,
    "kemKey": _kem_key,
    "decapsulate": _decapsulate,
    "sealingKey": _sealing_key,
    "rootKey": _root_key,
    "deviceList": _device_list,
    "succession": _succession,
    "usernameClaim": _username_claim,
    "queueOwner": _queue_owner,
    "prekeyRecord": _prekey_record,
    "contactRecord": _contact_record,
    "handshake": _handshake,
    "respond": _respond,
    "initiate": _initiate,
    "sealed": _sealed,
    "firstMessage": _first_message,
    "rootStep": _root_step,
    "chain": _chain,
    "messageBody": _message_body,
    "routingTag": _routing_tag,
    "session": _session,
    "ratchetState": _ratchet_state,
    "ratchet": _ratchet,
    "expectedTags": _expected_tags,
    "found": _found,
    "fragment": _fragment,
    "offeredKey": _offered_key,
    "epochSecret": _epoch_secret,
    "carried": _carried,
    "collected": _collected,
    "pqState": _pq_state,
    "membershipHash": _membership_hash,
    "distribution": _distribution,
    "groupMessage": _group_message,
    "groupTags": _group_tags,
    "ownSenderKey": _own_sender_key,
    "peerSenderKey": _peer_sender_key,
    "pointer": _pointer,
    "attachment": _attachment,
    "attachmentRange": _attachment_range,
    "directorySigner": _directory_signer,
    "directoryRequest": _directory_request,
    "registration": _registration,
    "bundles": _bundles,
    "foundName": _found_name,
    "spellPhrase": _spell_phrase,
    "readPhrase": _read_phrase,
    "safetyNumber": _safety_number,
    "safetyCode": _safety_code,
    "safetyComparison": _safety_comparison,
}

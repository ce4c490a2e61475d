"""What each type of test means for the second implementation: fields in, functions of `tests.second`, fields out.

An operation raises RefusedError. Nothing here computes: what a construction needs stands in its page of the spec.
"""

from dataclasses import replace

from tests.second import (
    aes_gcm,
    agreement,
    attachments,
    directory,
    hpke,
    identity,
    keys,
    message,
    ml_kem,
    notation,
    padding,
    phrase,
    pq,
    prekeys,
    ratchet,
    ratchet_keys,
    safety,
    sealed,
    sender_keys,
    stored,
)
from tests.second.agreement import Handshake, Initiator, Responder, SessionKeys
from tests.second.identity import Device, DeviceList
from tests.second.message import Announced, Route
from tests.second.ratchet import Drawn, Session
from tests.second.refusal import RefusedError

from .form import Case, Entry, Operation, Outputs, attachment_bytes, delivered

Refusal = RefusedError


def reason_of(refusal: RefusedError) -> str:
    """The name of a refusal's reason."""
    return refusal.reason


def _claim(derived: bytes, claimed: bytes, reason: str) -> Outputs:
    if derived != claimed:
        raise RefusedError(reason)
    return {}


# --- Labels, ids, padding ---------------------------------------------------------------------------------------


def _label(case: Case) -> Outputs:
    return _claim(notation.label(case.text("name")), case.bytes("label"), "malformed")


def _account_id(case: Case) -> Outputs:
    return _claim(identity.account_id(case.bytes("rootKey")), case.bytes("accountId"), "wrong_account")


def _device_id(case: Case) -> Outputs:
    derived = identity.device_id(case.bytes("signingKey"), case.bytes("identityKey"))
    return _claim(derived, case.bytes("deviceId"), "wrong_device")


def _queue_id(case: Case) -> Outputs:
    return _claim(identity.queue_id(case.bytes("ownerKey")), case.bytes("queueId"), "malformed")


def _send_key_hash(case: Case) -> Outputs:
    return _claim(identity.send_key_hash(case.bytes("sendKey")), case.bytes("sendKeyHash"), "malformed")


def _pad(case: Case) -> Outputs:
    return {"padded": padding.pad(case.bytes("content"), case.number("minimum"))}


def _padded_length(case: Case) -> Outputs:
    return {"paddedLength": padding.padded_length(case.number("length"), case.number("minimum"))}


def _unpad(case: Case) -> Outputs:
    return {"content": padding.unpad(case.bytes("padded"))}


# --- Keys -------------------------------------------------------------------------------------------------------


def _exchange_key(case: Case) -> Outputs:
    keys.check_exchange_key(case.bytes("publicKey"))
    return {}


def _exchange(case: Case) -> Outputs:
    keys.check_exchange_key(case.bytes("publicKey"))
    return {"sharedSecret": keys.exchange(case.bytes("secretKey"), case.bytes("publicKey"))}


def _signing_key(case: Case) -> Outputs:
    keys.check_signing_key(case.bytes("publicKey"))
    return {}


def _signature(case: Case) -> Outputs:
    keys.verify(case.bytes("publicKey"), case.bytes("message"), case.bytes("signature"))
    return {}


def _kem_key(case: Case) -> Outputs:
    ml_kem.check_public(case.bytes("publicKey"))
    return {}


def _decapsulate(case: Case) -> Outputs:
    return {"sharedSecret": ml_kem.decapsulate(case.bytes("seed"), case.bytes("ciphertext"))}


def _sealing_key(case: Case) -> Outputs:
    hpke.check_x_wing_public(case.bytes("publicKey"))
    return {}


# --- Identity ---------------------------------------------------------------------------------------------------


def _root_key(case: Case) -> Outputs:
    public = keys.signing_public(identity.root_seed(case.bytes("entropy")))
    return {"rootKey": public, "accountId": identity.account_id(public)}


def _list_fields(found: DeviceList) -> Outputs:
    return {
        "accountId": found.account,
        "version": found.version,
        "time": found.time,
        "flag": found.flag,
        "deviceIds": [device.id for device in found.devices],
        "listHash": found.hash,
    }


def _device_list(case: Case) -> Outputs:
    return _list_fields(identity.open_device_list(case.bytes("rootKey"), case.bytes("record")))


def _succession(case: Case) -> Outputs:
    return _list_fields(identity.check_successor(case.bytes("known"), case.bytes("record"), case.bytes("rootKey")))


def _username_claim(case: Case) -> Outputs:
    time, username = identity.open_username_claim(case.bytes("rootKey"), case.bytes("record"))
    return {"time": time, "username": username}


def _queue_owner(case: Case) -> Outputs:
    statement = identity.owner_statement(case.text("origin"), case.bytes("nonce"), case.bytes("ownerKey"))
    keys.verify(case.bytes("ownerKey"), statement, case.bytes("signature"))
    return {}


# --- Prekeys ----------------------------------------------------------------------------------------------------


def _entry(case: Case) -> Device:
    return Device(case.bytes("signingKey"), case.bytes("identityKey"), bytes(64))


def _prekey_record(case: Case) -> Outputs:
    found = prekeys.open_prekeys(_entry(case), case.bytes("accountId"), case.bytes("record"), case.number("now"))
    return {
        "recordId": found.record_id,
        "created": found.created,
        "expires": found.expires,
        "recordHash": found.record_hash,
    }


def _contact_record(case: Case) -> Outputs:
    found = prekeys.open_contact_record(_entry(case), case.bytes("accountId"), case.bytes("record"), case.number("now"))
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
    found = agreement.parse_handshake(case.bytes("handshake"))
    return {
        "generation": found.generation,
        "accountId": found.account,
        "deviceId": found.device,
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


def _own_device_id(case: Case) -> bytes:
    signing_key = keys.signing_public(case.bytes("signingSeed"))
    return identity.device_id(signing_key, keys.exchange_public(case.bytes("identitySecret")))


def _responder(case: Case) -> Responder:
    return Responder(
        case.bytes("accountId"),
        _own_device_id(case),
        case.bytes("identitySecret"),
        case.bytes("signedPrekeySecret"),
        case.bytes("pqPrekeySeed"),
        case.bytes("sealingSeeds"),
        case.bytes("record"),
    )


def _responded(case: Case, handshake: Handshake) -> SessionKeys:
    one_time = None if case.is_null("oneTimeId") else (case.number("oneTimeId"), case.bytes("oneTimeSecret"))
    return agreement.respond(_responder(case), one_time, handshake)


def _respond(case: Case) -> Outputs:
    return _session_fields(_responded(case, agreement.parse_handshake(case.bytes("handshake"))))


def _initiate(case: Case) -> Outputs:
    entry = Device(case.bytes("peerSigningKey"), case.bytes("peerIdentityKey"), bytes(64))
    peer = prekeys.open_prekeys(entry, case.bytes("peerAccountId"), case.bytes("record"), case.number("now"))
    one_time = None if case.is_null("oneTimeId") else (case.number("oneTimeId"), case.bytes("oneTimeKey"))
    own = Initiator(
        case.bytes("accountId"),
        _own_device_id(case),
        case.bytes("identitySecret"),
        case.bytes("ephemeralSecret"),
        case.bytes("kemCoins"),
    )
    handshake, found = agreement.initiate(own, peer, entry.identity_key, one_time, case.number("generation"))
    return {"handshake": handshake, **_session_fields(found)}


# --- Sealed first message ---------------------------------------------------------------------------------------


def _sealed(case: Case) -> Outputs:
    return {"content": sealed.open_sealed(_responder(case), case.bytes("envelope"))}


def _first_message(case: Case) -> Outputs:
    first = sealed.parse_first_message(sealed.open_sealed(_responder(case), case.bytes("envelope")))
    found, entry = sealed.open_sender(first)
    return {
        "senderAccountId": found.account,
        "senderDeviceId": entry.id,
        "listVersion": found.version,
        "message": first.message,
        "sessionId": _responded(case, first.handshake).session_id,
    }


# --- Ratchet keys -----------------------------------------------------------------------------------------------


def _root_step(case: Case) -> Outputs:
    keys.check_exchange_key(case.bytes("peerKey"))
    shared = keys.exchange(case.bytes("ownSecret"), case.bytes("peerKey"))
    step = ratchet_keys.root_step(case.bytes("rootKey"), shared, case.bytes("pqSecret"), case.number("epoch"))
    names = ("nextRootKey", "chainKey", "nextHeaderKey", "nextTagKey", "ephemeralChainKey")
    return dict(zip(names, step, strict=True))


def _chain(case: Case) -> Outputs:
    message_key, next_chain_key = ratchet_keys.walk(case.bytes("chainKey"), case.number("number"))
    return {"messageKey": message_key, "nextChainKey": next_chain_key}


def _message_body(case: Case) -> Outputs:
    key, nonce = case.bytes("messageKey"), case.bytes("nonce")
    return {"padded": aes_gcm.decrypt(key, nonce, case.bytes("ciphertext"), case.bytes("associatedData"))}


# --- Ratchet ----------------------------------------------------------------------------------------------------


def _keys(case: Case) -> SessionKeys:
    names = ("sessionId", "rootKey", "headerKeyA", "tagKeyA", "headerKeyB", "tagKeyB")
    return SessionKeys(*(case.bytes(name) for name in names))


def _responding(case: Case) -> Session:
    session = ratchet.responder(_keys(case), case.bytes("signedPrekeySecret"))
    for item in case.items("history"):
        if item[:1] == b"\x00":
            session = ratchet.encrypt(session, b"", 0, Drawn(bytes(12), item[1:]))[1]
        else:
            session = ratchet.decrypt(session, item, ratchet.find(session, item))[1]
    return session


def _ratchet(case: Case) -> Outputs:
    announced = Announced(case.number("chain"), case.number("number"), bool(case.number("ephemeral")))
    return {"body": ratchet.decrypt(_responding(case), case.bytes("message"), announced)[0]}


def _expected_tags(case: Case) -> Outputs:
    return {"tags": sorted(ratchet.expected(_responding(case)))}


def _found(case: Case) -> Outputs:
    chain, number, is_ephemeral = ratchet.find(_responding(case), case.bytes("message"))
    return {"chain": chain, "number": number, "ephemeral": int(is_ephemeral)}


def _routing_tag(case: Case) -> Outputs:
    route = Route(bytes(32), case.bytes("tagKey"))
    return {"tag": message.tag(route, case.number("number"), is_ephemeral=bool(case.number("ephemeral")))}


def _step(session: Session, step: Case, given: list[bytes]) -> tuple[bytes, Session]:
    """(what the step gives, the session afterwards); `given` is what the steps before it gave."""
    match step.text("do"):
        case "send":
            drawn = Drawn(step.bytes("nonce"), step.bytes("ratchetSecret"), step.bytes("kemSeed"))
            return ratchet.encrypt(session, step.bytes("body"), step.number("at"), drawn)
        case "sendEphemeral":
            return ratchet.encrypt_ephemeral(session, step.bytes("body"), Drawn(step.bytes("nonce")))
        case "restart":
            return b"", replace(stored.unpack(stored.pack(session)), kept=session.kept)
        case "restore":
            return b"", stored.unpack(step.bytes("state"))
        case "receiveAs":
            announced = Announced(step.number("chain"), step.number("number"), bool(step.number("ephemeral")))
            return ratchet.decrypt(session, step.bytes("message"), announced, step.number("at"))
        case "receive":
            received, drawn = step.bytes("message"), Drawn()
        case _:
            received, drawn = delivered(step, given), Drawn(kem_coins=step.bytes("kemCoins"))
    return ratchet.decrypt(session, received, ratchet.find(session, received), step.number("at"), drawn)


def _result(session: Session, gave: bytes, refused: str | None) -> Entry:
    return {
        "gave": gave,
        "refused": refused,
        "epoch": session.epoch,
        "tags": notation.sha256(b"".join(sorted(ratchet.expected(session)))),
        "state": notation.sha256(stored.pack(session)),
    }


def _session(case: Case) -> Outputs:
    found, spk = _keys(case), case.bytes("signedPrekeySecret")
    initiator = ratchet.initiator(found, keys.exchange_public(spk), case.number("began"))
    sides = {"A": initiator, "B": ratchet.responder(found, spk)}
    results, given, steps = list[Entry](), list[bytes](), case.entries("steps")
    for step in steps:
        side, gave, refused = step.text("side"), b"", None
        try:
            gave, sides[side] = _step(sides[side], step, given)
        except RefusedError as refusal:
            if len(results) == len(steps) - 1:
                raise
            refused = refusal.reason
        given.append(gave)
        results.append(_result(sides[side], gave, refused))
    return {"results": results}


def _ratchet_state(case: Case) -> Outputs:
    session = stored.unpack(case.bytes("state"))
    return {"epoch": session.epoch, "tags": sorted(ratchet.expected(session)), "packed": stored.pack(session)}


# --- Post-quantum ratchet ---------------------------------------------------------------------------------------


def _fragment(case: Case) -> Outputs:
    fragment, body = pq.split(case.bytes("content"))
    if fragment is None:
        return {"epoch": None, "first": None, "data": b"", "body": body}
    return {"epoch": fragment.epoch, "first": fragment.first, "data": fragment.data, "body": body}


def _offered_key(case: Case) -> Outputs:
    fragment = pq.Fragment(1, case.number("first"), case.bytes("blocks"))
    assert isinstance(pq.take(pq.Waiting({}), 0, fragment, 0, bytes(32)), pq.Answering)
    return {}


def _epoch_secret(case: Case) -> Outputs:
    seed, fragment = case.bytes("seed"), pq.Fragment(1, case.number("first"), case.bytes("blocks"))
    state = pq.take(pq.Offering(seed, ml_kem.public_of(seed), 0, 0, {}), 0, fragment, 0, b"")
    assert isinstance(state, pq.Due)
    return {"secret": state.secret}


def _carried(case: Case) -> Outputs:
    state, seed, fields = stored.unpack_pq(case.bytes("state")), case.bytes("kemSeed"), list[bytes]()
    for index, item in enumerate(case.items("messages")):
        at, length = notation.number(item[:8]), notation.number(item[8:])
        field, state = pq.give(state, case.number("epoch"), case.number("messagesBefore") + index, length, at, seed)
        fields.append(field)
    return {"fields": fields, "packed": stored.pack_pq(state)}


def _collected(case: Case) -> Outputs:
    state = stored.unpack_pq(case.bytes("state"))
    for item in case.items("fields"):
        fragment = pq.split(item)[0]
        state = pq.take(state, case.number("epoch"), fragment, case.number("now"), case.bytes("kemCoins"))
    return {"packed": stored.pack_pq(state)}


def _pq_state(case: Case) -> Outputs:
    return {"packed": stored.pack_pq(stored.unpack_pq(case.bytes("state")))}


# --- Sender keys ------------------------------------------------------------------------------------------------


def _membership_hash(case: Case) -> Outputs:
    members = [(member[:-1], member[-1]) for member in case.items("members")]
    return {"membershipHash": sender_keys.membership_hash(case.bytes("groupId"), case.number("epoch"), members)}


def _distribution(case: Case) -> Outputs:
    found = sender_keys.accept(case.bytes("distribution"), case.bytes("deviceId"))
    return {
        "chainId": found.id,
        "groupId": found.group,
        "epoch": found.epoch,
        "tags": sorted(sender_keys.expected(found)),
    }


def _group_message(case: Case) -> Outputs:
    memberships = {notation.number(item[:4]): item[4:] for item in case.items("memberships")}
    chain = sender_keys.accept(case.bytes("distribution"), case.bytes("deviceId"))
    for received in case.items("history"):
        n, is_ephemeral = sender_keys.find(chain, received)
        chain = sender_keys.decrypt(chain, received, n, memberships, is_ephemeral=is_ephemeral)[1]
    asked, is_ephemeral = case.number("number"), bool(case.number("ephemeral"))
    asked_for = case.bytes("message")
    return {"content": sender_keys.decrypt(chain, asked_for, asked, memberships, is_ephemeral=is_ephemeral)[0]}


def _group_tags(case: Case) -> Outputs:
    memberships = {notation.number(item[:4]): item[4:] for item in case.items("memberships")}
    chain = stored.unpack_peer(case.bytes("state"))
    tables = [notation.sha256(b"".join(sorted(sender_keys.expected(chain))))]
    for received in case.items("history"):
        n, is_ephemeral = sender_keys.find(chain, received)
        chain = sender_keys.decrypt(chain, received, n, memberships, is_ephemeral=is_ephemeral)[1]
        tables.append(notation.sha256(b"".join(sorted(sender_keys.expected(chain)))))
    return {"tables": tables, "tags": sorted(sender_keys.expected(chain)), "packed": stored.pack_peer(chain)}


def _own_sender_key(case: Case) -> Outputs:
    own, nonces = stored.unpack_own(case.bytes("state")), case.items("nonces")
    what = (case.number("epoch"), case.bytes("membershipHash"), case.bytes("content"))
    ephemeral, own = sender_keys.encrypt_ephemeral(own, *what, nonces[0])
    in_order, own = sender_keys.encrypt(own, *what, nonces[1])
    return {
        "ephemeral": ephemeral,
        "message": in_order,
        "distribution": sender_keys.distribution(own),
        "packed": stored.pack_own(own),
    }


def _peer_sender_key(case: Case) -> Outputs:
    chain = stored.unpack_peer(case.bytes("state"))
    return {"chainId": chain.id, "tags": sorted(sender_keys.expected(chain)), "packed": stored.pack_peer(chain)}


# --- Attachments ------------------------------------------------------------------------------------------------


def _pointer(case: Case) -> Outputs:
    found = attachments.parse_pointer(case.bytes("pointer"))
    return {"size": found.size, "paddedSize": found.padded_size, "containerSize": found.container_size}


def _attachment(case: Case) -> Outputs:
    pointer = attachments.parse_pointer(case.bytes("pointer"))
    return {"content": attachments.open_attachment(pointer, attachment_bytes(case))}


def _attachment_range(case: Case) -> Outputs:
    pointer, container = attachments.parse_pointer(case.bytes("pointer")), attachment_bytes(case)
    return {"content": attachments.read_range(pointer, container, case.number("start"), case.number("end"))}


# --- Directory --------------------------------------------------------------------------------------------------


def _directory_signer(case: Case) -> Outputs:
    found = directory.parse_signer(*(case.text(name) for name in ("account", "device", "counter", "signature")))
    return {
        "accountId": found.account,
        "deviceId": found.device,
        "counterValue": found.counter,
        "signatureValue": found.signature,
    }


def _directory_request(case: Case) -> Outputs:
    signer = directory.Signer(
        case.bytes("accountId"), case.bytes("deviceId"), case.number("counter"), case.bytes("signature")
    )
    what = case.text("method"), case.text("path"), case.bytes("body")
    directory.check_request(case.bytes("signingKey"), signer, case.text("origin"), *what)
    return {}


def _registration(case: Case) -> Outputs:
    who = case.bytes("accountId"), case.bytes("deviceId")
    found = directory.open_registration(*who, case.text("body").encode(), case.number("now"))
    return {
        "listVersion": found.version,
        "recordId": found.record_id,
        "sequence": found.sequence,
        "expires": found.expires,
        "oneTimeIds": [each.to_bytes(4, "big") for each in found.one_time_ids],
        "username": found.username,
    }


def _bundles(case: Case) -> Outputs:
    listed, reached = directory.open_bundles(case.bytes("accountId"), case.text("body").encode(), case.number("now"))
    return {
        "listVersion": listed.version,
        "devices": [each.device for each in reached],
        "queues": [each.queue for each in reached],
        "oneTimeIds": [b"" if each.one_time is None else each.one_time.to_bytes(4, "big") for each in reached],
    }


def _found_name(case: Case) -> Outputs:
    return {"accountId": directory.open_found_name(case.text("username"), case.text("body").encode())}


# --- Recovery phrase, safety number -----------------------------------------------------------------------------


def _spell_phrase(case: Case) -> Outputs:
    return {"phrase": phrase.spell(case.bytes("entropy"))}


def _read_phrase(case: Case) -> Outputs:
    return {"entropy": phrase.read(case.text("phrase"))}


def _safety_number(case: Case) -> Outputs:
    return {"digits": safety.safety_number(case.bytes("one"), case.bytes("other"))}


def _safety_code(case: Case) -> Outputs:
    found = safety.parse_code(case.bytes("code"))
    return {
        "own": found.own,
        "other": found.other,
        "ownVersion": found.own_list[0],
        "ownHash": found.own_list[1],
        "otherVersion": found.other_list[0],
        "otherHash": found.other_list[1],
    }


def _safety_comparison(case: Case) -> Outputs:
    scanned, own = safety.parse_code(case.bytes("scanned")), safety.parse_code(case.bytes("own"))
    mine, theirs = safety.compare(scanned, own)
    return {"mine": mine, "theirs": theirs, "verdict": safety.verdict(mine, theirs)}


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

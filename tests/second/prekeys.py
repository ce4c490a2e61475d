"""prekeys.md: a device's signed prekey record and contact record. No handshake."""

from dataclasses import dataclass

from . import hpke, keys, ml_kem
from .identity import Device, open_record
from .notation import check_origin, fields, label, number, sha256, text
from .refusal import RefusedError

_DAY = 86_400


@dataclass(frozen=True)
class Prekeys:
    """A prekey record's fields, the record as received and its hash."""

    account: bytes
    device: bytes
    record_id: int
    created: int
    expires: int
    signed_prekey: bytes
    pq_prekey: bytes
    sealing_key: bytes
    record: bytes
    record_hash: bytes


@dataclass(frozen=True)
class Contact:
    """A contact record's fields."""

    sequence: int
    created: int
    expires: int
    queue: bytes
    send_key: bytes
    origin: str


def _check_owner(entry: Device, account: bytes, found: tuple[bytes, bytes]) -> None:
    if found[0] != account:
        raise RefusedError("wrong_account")
    if found[1] != entry.id:
        raise RefusedError("wrong_device")


def _check_times(created: int, expires: int, now: int) -> None:
    if not created < expires <= created + 30 * _DAY:
        raise RefusedError("bad_record")
    if created > now + _DAY:
        raise RefusedError("not_yet_valid")
    if now >= expires:
        raise RefusedError("expired")


def parse_prekeys(record: bytes) -> Prekeys:
    """The fields of a record whose signature was checked, or that is one's own."""
    payload = record[:-64]
    pieces = fields(payload, (32, 16, 4, 8, 8, 32, ml_kem.PUBLIC_LENGTH, ml_kem.PUBLIC_LENGTH + 32), "bad_record")
    account, device, record_id, created, expires, signed_prekey, pq_prekey, sealing_key = pieces
    numbers = (number(record_id), number(created), number(expires))
    record_hash = sha256(label("prekey record hash") + payload)
    return Prekeys(account, device, *numbers, signed_prekey, pq_prekey, sealing_key, record, record_hash)


def open_prekeys(entry: Device, account: bytes, record: bytes, now: int) -> Prekeys:
    """The prekeys of a listed device, with all checks of the table."""
    open_record(entry.signing_key, "prekey record", record)
    found = parse_prekeys(record)
    _check_owner(entry, account, (found.account, found.device))
    _check_times(found.created, found.expires, now)
    keys.check_exchange_key(found.signed_prekey)
    ml_kem.check_public(found.pq_prekey)
    hpke.check_x_wing_public(found.sealing_key)
    return found


def parse_contact(payload: bytes) -> tuple[tuple[bytes, bytes], Contact]:
    """((account id, device id), the rest) of a contact record, strictly."""
    head = (32, 16, 8, 8, 8, 16, 32)
    pieces = fields(payload[: sum(head)], head, "bad_record")
    origin = text(payload[sum(head) :], "bad_record")
    check_origin(origin, "bad_record")
    sequence, created, expires = (number(piece) for piece in pieces[2:5])
    return (pieces[0], pieces[1]), Contact(sequence, created, expires, pieces[5], pieces[6], origin)


def open_contact_record(entry: Device, account: bytes, record: bytes, now: int) -> Contact:
    """The address of a listed device, with all checks of the table and of the origin."""
    owner, found = parse_contact(open_record(entry.signing_key, "contact record", record))
    _check_owner(entry, account, owner)
    _check_times(found.created, found.expires, now)
    return found

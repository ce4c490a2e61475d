"""doubleratchet and x3dh by Syndace: Python on `cryptography` and libxeddsa. Here stands only how they are called.

Their recommended parts, as python-omemo puts them together. Their coroutines never wait, so no event loop is needed.
"""

from collections.abc import Coroutine
from typing import Any

import x3dh
from doubleratchet import DoubleRatchet, Header
from doubleratchet.recommended import (
    HashFunction,
    aead_aes_hmac,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)

from .. import crypto_work
from ..crypto_work import BODY, Counts, Figures, Meeting, Pair, Side

_SKIPPED = 2_000


class _State(x3dh.BaseState):  # type: ignore[misc] # x3dh stands in the bench's lock only
    @staticmethod
    def _encode_public_key(key_format: x3dh.IdentityKeyFormat, pub: bytes) -> bytes:
        return bytes([key_format is x3dh.IdentityKeyFormat.CURVE_25519]) + pub


class _RootKdf(kdf_hkdf.KDF):  # type: ignore[misc] # as above
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench root"


class _ChainKdf(kdf_separate_hmacs.KDF):  # type: ignore[misc] # as above
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class _Aead(aead_aes_hmac.AEAD):  # type: ignore[misc] # as above
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench message"


class _Ratchet(DoubleRatchet):  # type: ignore[misc] # as above
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        numbers = (header.sending_chain_length, header.previous_sending_chain_length)
        return b"".join([associated_data, header.ratchet_pub, *(number.to_bytes(8, "big") for number in numbers)])


_PARTS: dict[str, Any] = {
    "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    "root_chain_kdf": _RootKdf,
    "message_chain_kdf": _ChainKdf,
    "message_chain_constant": b"\x01\x02",
    "dos_protection_threshold": _SKIPPED,
    "max_num_skipped_message_keys": _SKIPPED,
    "aead": _Aead,
}


class _Syndace:
    name = "doubleratchet"

    def __init__(self) -> None:
        self.works = {**crypto_work.sessions(_meeting), "serialise": _serialise}


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a coroutine waits for something")


def _meeting() -> Meeting:
    meet = _ratchets()

    def sides() -> Pair:
        initiator, responder, associated_data = meet()
        return _side(initiator, associated_data), _side(responder, associated_data)

    return sides


def _ratchets() -> Any:
    alice, bob = (_State.create(x3dh.IdentityKeyFormat.ED_25519, x3dh.HashFunction.SHA_256, b"bench") for _ in range(2))
    bob.generate_pre_keys(1)
    bundle = bob.bundle

    def meet() -> tuple[_Ratchet, _Ratchet, bytes]:
        secret, associated_data, header = _result(alice.get_shared_secret_active(bundle))
        common = {**_PARTS, "associated_data": associated_data}
        initiator, first = _result(
            _Ratchet.encrypt_initial_message(
                shared_secret=secret, recipient_ratchet_pub=bundle.signed_pre_key, message=BODY, **common
            )
        )
        secret, _, signed_prekey = _result(bob.get_shared_secret_passive(header))
        bob.delete_pre_key(header.pre_key)
        responder, text = _result(
            _Ratchet.decrypt_initial_message(
                shared_secret=secret, own_ratchet_priv=signed_prekey.priv, message=first, **common
            )
        )
        crypto_work.check([text])
        return initiator, responder, associated_data

    return meet


def _side(ratchet: _Ratchet, associated_data: bytes) -> Side:
    return Side(
        lambda body: _result(ratchet.encrypt_message(body, associated_data)),
        lambda message: _result(ratchet.decrypt_message(message, associated_data)),
    )


def _serialise(counts: Counts) -> Figures:
    ratchet, _, _ = _ratchets()()
    _, serialise_us = crypto_work.mapped(lambda _: ratchet.model.model_dump_json(), [None] * counts.packs)
    return {"serialise_us": serialise_us}


PEER = _Syndace()

"""vodozemac: Olm and Megolm in Rust, by its Python binding. Here stands only how it is called."""

import vodozemac

from .. import crypto_work
from ..crypto_work import BODY, Group, Meeting, Pair, Side


class _Vodozemac:
    name = "vodozemac"

    def __init__(self) -> None:
        self.works = {**crypto_work.sessions(_meeting), "group": crypto_work.group(_group)}


def _meeting() -> Meeting:
    alice, bob = vodozemac.Account(), vodozemac.Account()
    bob.generate_one_time_keys(1)
    (one_time,) = bob.one_time_keys.values()
    bob.mark_keys_as_published()

    def meet() -> Pair:
        initiator = alice.create_outbound_session(bob.curve25519_key, one_time)
        first = vodozemac.AnyOlmMessage.from_parts(*initiator.encrypt(BODY).to_parts()).to_pre_key()
        responder, text = bob.create_inbound_session(alice.curve25519_key, first)
        crypto_work.check([text])
        return _side(initiator), _side(responder)

    return meet


def _side(session: vodozemac.Session) -> Side:
    from_parts = vodozemac.AnyOlmMessage.from_parts
    return Side(
        lambda body: session.encrypt(body).to_parts(),
        lambda message: session.decrypt(from_parts(*message)),
        vodozemac.OlmDecryptionException,
    )


def _group() -> Group:
    speaker = vodozemac.GroupSession()
    member = vodozemac.InboundGroupSession(speaker.session_key)
    from_bytes = vodozemac.MegolmMessage.from_bytes
    return (
        lambda body: speaker.encrypt(body).to_bytes(),
        lambda message: member.decrypt(from_bytes(message)).plaintext,
    )


PEER = _Vodozemac()

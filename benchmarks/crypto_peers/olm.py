"""python-olm: Olm and Megolm in C (libolm, which Matrix has given up for vodozemac). Here stands only how it is called.

It takes and gives text.
"""

import olm

from .. import crypto_work
from ..crypto_work import BODY, Group, Meeting, Pair, Side


class _Olm:
    name = "python-olm"

    def __init__(self) -> None:
        self.works = {**crypto_work.sessions(_meeting), "group": crypto_work.group(_group)}


def _meeting() -> Meeting:
    alice, bob = olm.Account(), olm.Account()
    bob.generate_one_time_keys(1)
    (one_time,) = bob.one_time_keys["curve25519"].values()
    identity = bob.identity_keys["curve25519"]
    bob.mark_keys_as_published()

    def meet() -> Pair:
        initiator = olm.OutboundSession(alice, identity, one_time)
        first = initiator.encrypt(BODY)
        responder = olm.InboundSession(bob, first)
        text = responder.decrypt(first)
        bob.remove_one_time_keys(responder)
        crypto_work.check([text.encode()])
        return _side(initiator), _side(responder)

    return meet


def _side(session: olm.Session) -> Side:
    return Side(session.encrypt, lambda message: session.decrypt(message).encode(), olm.OlmSessionError)


def _group() -> Group:
    speaker = olm.OutboundGroupSession()
    member = olm.InboundGroupSession(speaker.session_key)
    return speaker.encrypt, lambda message: member.decrypt(message)[0].encode()


PEER = _Olm()

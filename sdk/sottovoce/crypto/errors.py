"""The one exception of this package and the closed list of its reasons.

Here stand outcomes, never causes in the words of another library, and never bytes of what was refused.
"""

import enum


@enum.unique
class Reason(enum.StrEnum):
    """Why input was refused. The list is closed: the spec and the test vectors use the same names."""

    # Keys and signed records (spec: identity, prekeys)
    BAD_KEY = "bad_key"
    BAD_SIGNATURE = "bad_signature"
    BAD_RECORD = "bad_record"
    BAD_PHRASE = "bad_phrase"
    WRONG_ACCOUNT = "wrong_account"
    WRONG_DEVICE = "wrong_device"
    NOT_LISTED = "not_listed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"

    # The succession of device lists (spec: identity)
    STALE_LIST = "stale_list"
    MISSING_LIST = "missing_list"
    FORKED_LIST = "forked_list"
    ACCOUNT_ENDED = "account_ended"

    # Handshakes and sealed messages (spec: pqxdh, sealed)
    UNSUPPORTED_VERSION = "unsupported_version"
    WRONG_RECIPIENT = "wrong_recipient"
    OWN_DEVICE = "own_device"
    UNKNOWN_PREKEY = "unknown_prekey"

    # Ciphertext (spec: sealed, ratchet)
    MALFORMED = "malformed"
    NOT_AUTHENTIC = "not_authentic"
    ALREADY_USED = "already_used"
    CLONE_SUSPECTED = "clone_suspected"
    WRONG_EPOCH = "wrong_epoch"
    TOO_FAR_AHEAD = "too_far_ahead"
    CHAIN_ENDED = "chain_ended"
    NOTHING_RECEIVED = "nothing_received"
    NOTHING_SENT = "nothing_sent"


class CryptoRefusal(Exception):  # noqa: N818 - refusing is what the protocol does, not a fault
    """Input that breaks a rule of the protocol. `reason` names the rule.

    `detail` says it in words; it holds no key, id or message, so that it may be logged.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

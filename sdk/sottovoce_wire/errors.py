"""Error codes with numbers that never change, and the one exception of this package.

A number, once released, keeps its meaning for ever; new ones are added, none is used again.
The table stands in protocol-spec/codes.md, and a test compares the two.
"""

import enum


@enum.unique
class Code(enum.IntEnum):
    """Every outcome that one Sottovoce program can name to another."""

    ACCEPTED = 0

    # Frames and connections
    MALFORMED = 100
    UNKNOWN_TAG = 101
    MISSING_FIELD = 102
    WRONG_LENGTH = 103
    TRAILING_BYTES = 104
    FRAME_TOO_LARGE = 105
    UNSUPPORTED_VERSION = 106
    UNEXPECTED_FRAME = 107
    TOO_SLOW = 108
    TOO_MANY_CONNECTIONS = 109

    # A queue's owner
    BAD_SIGNATURE = 200
    UNKNOWN_QUEUE = 201
    QUEUE_NOT_PROVEN = 202
    BAD_ACK = 203
    TOO_MANY_SEND_KEYS = 204
    TOO_MANY_QUEUES = 205
    DISPLACED = 206
    REGISTRATION_CLOSED = 207

    # A sender
    REFUSED = 300
    ID_CONFLICT = 301
    QUEUE_FULL = 302
    ENVELOPE_TOO_LARGE = 303
    TRY_AGAIN = 304

    # The directory
    BAD_REQUEST = 400
    BAD_REQUEST_SIGNATURE = 401
    COUNTER_CONFLICT = 402
    UNKNOWN_ACCOUNT = 403
    UNKNOWN_NAME = 404
    NAME_TAKEN = 405
    BAD_RECORD = 406
    ACCOUNT_CONFLICT = 407
    UNKNOWN_PATH = 408
    UNKNOWN_DEVICE = 409
    TOO_MANY_PREKEYS = 410

    # A server
    INTERNAL = 500
    SHUTTING_DOWN = 501


class WireError(Exception):
    """Bytes that are not what they should be. `code` says which rule they break.

    `detail` names the rule, never the bytes: it may be logged and sent to the peer.
    """

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code.name.lower()} ({code.value}): {detail}")
        self.code = code
        self.detail = detail

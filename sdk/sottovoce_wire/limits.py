"""Every number that bounds something on the wire, with its reason.

The servers may be configured to less; nobody may send more. protocol-spec/limits.md shows this table.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
HOUR: Final = 3600
DAY: Final = 24 * HOUR

#: The only version of the relay protocol so far.
PROTOCOL_VERSION: Final = 1

#: One WebSocket message. Large enough for a full page of ordinary envelopes, small enough to buffer per connection.
MAX_MESSAGE: Final = MIB
#: Frames in one message: as many as are ready together.
MAX_FRAMES: Final = 1024
#: One envelope's body. Larger content travels as an attachment.
MAX_ENVELOPE: Final = 64 * KIB
#: Items in one Send frame, so that one frame is one bounded piece of a transaction.
MAX_SEND_ITEMS: Final = 256
#: Queues that one body goes to in one frame: a large group's devices.
MAX_TARGETS: Final = 1024
#: Unacknowledged envelopes that a relay pushes to one queue's connection.
MAX_UNACKNOWLEDGED: Final = 256
#: Unacknowledged bytes on the same connection.
MAX_UNACKNOWLEDGED_BYTES: Final = 4 * MIB
#: Send keys of one queue: contacts share one, groups and invite links have one each.
MAX_SEND_KEYS: Final = 256
#: A demoted send key lives this long: the longest life of an envelope, and a day for its holders to hear of another.
DEMOTED_LIFETIME: Final = 31 * DAY
#: The code that a relay may ask of who creates a queue.
MAX_REGISTRATION_CODE: Final = 128
#: Queues that one connection may prove. A device has two.
MAX_QUEUES_PER_CONNECTION: Final = 16

#: What waits in one queue, whatever the send key.
QUEUE_ENVELOPES: Final = 10_000
QUEUE_BYTES: Final = 64 * MIB
#: What waits in one queue under its stranger keys: anybody who knows the directory can fill this much.
STRANGER_ENVELOPES: Final = 2_000
STRANGER_BYTES: Final = 16 * MIB
#: What waits under one invite link's key.
INVITE_ENVELOPES: Final = 500

#: Device entries in a list. A person's devices, with room; a list stays under two kilobytes.
MAX_DEVICES: Final = 10
#: One-time prekeys a keyserver keeps per device, and takes in one request.
MAX_ONE_TIME_PREKEYS: Final = 200
#: A request counter that a keyserver may name: a client answers with a greater one, and room must be left for it.
MAX_COUNTER: Final = 2**53 - 1
#: A directory request's JSON body: a registration with 200 one-time prekeys is under 32 KiB.
MAX_DIRECTORY_BODY: Final = 64 * KIB

#: Usernames: 2 to 32 of a-z, 0-9, dot, underscore, hyphen, a letter first. Account ids have 52 characters.
MIN_USERNAME: Final = 2
MAX_USERNAME: Final = 32
#: `https://` and a host and port.
MAX_ORIGIN: Final = 255

#: A signed prekey record and a contact record are good for this long.
RECORD_LIFETIME: Final = 30 * DAY
#: Clocks of two devices may differ by this much before a record counts as not yet valid.
CLOCK_TOLERANCE: Final = DAY

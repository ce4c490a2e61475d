"""What is told of a connection, and what is not."""

from sottovoce.connection import Connection, Watched
from sottovoce.errors import ServerUnreachable, WrongServer

ORIGIN = "https://relay.example"


def test_every_change_is_told_once() -> None:
    told: list[Connection] = []
    watched = Watched(ORIGIN, "send", told.append)
    first, again, other = ServerUnreachable("gone"), ServerUnreachable("gone"), WrongServer("gone")
    watched.down()
    watched.down(first)
    watched.down(again)
    assert watched.trouble is again
    watched.down(other)
    watched.up()
    watched.up()
    assert watched.trouble is None
    watched.down()
    assert told == [
        Connection(ORIGIN, "send", False, first),
        Connection(ORIGIN, "send", False, other),
        Connection(ORIGIN, "send", True),
        Connection(ORIGIN, "send", False),
    ]

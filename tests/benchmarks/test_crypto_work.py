"""The work measures only what came out right, and says what was lost."""

import pytest

from benchmarks import crypto_work
from benchmarks.crypto_work import BODY, Counts, Meeting, Pair, Side, WrongResult

COUNTS = Counts(messages=4, turns=2, setups=2, group=3, reverse=5, packs=2, attachment_mib=1)


class TooOldError(Exception):
    pass


class Clear:
    """A side that sends what it is given, numbered, and remembers what it was asked."""

    def __init__(self) -> None:
        self.sent = 0
        self.opened: list[int] = []

    def encrypt(self, body: bytes) -> tuple[int, bytes]:
        self.sent += 1
        return self.sent, body

    def decrypt(self, message: tuple[int, bytes]) -> bytes:
        number, body = message
        self.opened.append(number)
        return body

    @property
    def side(self) -> Side:
        return Side(self.encrypt, self.decrypt, TooOldError)


class Forgetful(Clear):
    """One that opens nothing older than two messages before the newest."""

    def decrypt(self, message: tuple[int, bytes]) -> bytes:
        if message[0] < max(self.opened, default=0) - 2:
            raise TooOldError
        return super().decrypt(message)


class Careless(Clear):
    """One that changes what it opens from the third message on."""

    def decrypt(self, message: tuple[int, bytes]) -> bytes:
        body = super().decrypt(message)
        return body if message[0] < 3 else body[:-1]


def meeting(initiator: Clear, responder: Clear) -> Meeting:
    def meet() -> Pair:
        return initiator.side, responder.side

    return meet


def test_a_body_has_256_bytes_of_text() -> None:
    assert len(BODY) == 256
    assert BODY.isascii()


def test_messages_are_opened_in_the_order_they_were_sent() -> None:
    responder = Clear()
    figures = crypto_work.messages(lambda: meeting(Clear(), responder))(COUNTS)
    assert figures.keys() == {"encrypt_us", "decrypt_us"}
    assert all(value > 0 for value in figures.values())
    assert responder.opened == [1, 2, 3, 4, 5]


def test_a_round_trip_has_a_message_each_way() -> None:
    initiator, responder = Clear(), Clear()
    figures = crypto_work.pingpong(lambda: meeting(initiator, responder))(COUNTS)
    assert figures.keys() == {"pingpong_us"}
    assert (initiator.sent, responder.sent) == (3, 3)


def test_the_last_message_comes_first_in_reverse() -> None:
    responder = Clear()
    figures = crypto_work.reverse(lambda: meeting(Clear(), responder))(COUNTS)
    assert figures.keys() == {"reverse_us"}
    assert responder.opened[1:] == [6, 5, 4, 3, 2]


def test_who_loses_messages_has_their_number_and_no_time() -> None:
    assert crypto_work.reverse(lambda: meeting(Clear(), Forgetful()))(COUNTS) == {"reverse_lost": 2}


@pytest.mark.parametrize("work", [crypto_work.messages, crypto_work.pingpong, crypto_work.reverse])
def test_a_message_that_comes_out_changed_is_no_figure(work: object) -> None:
    assert callable(work)
    with pytest.raises(WrongResult, match="came out changed"):
        work(lambda: meeting(Clear(), Careless()))(COUNTS)


def test_a_group_message_that_comes_out_changed_is_no_figure() -> None:
    with pytest.raises(WrongResult, match="came out changed"):
        crypto_work.group(lambda: (Clear().encrypt, Careless().decrypt))(COUNTS)


def test_a_group_is_measured_from_its_speaker_to_a_member() -> None:
    speaker, member = Clear(), Clear()
    figures = crypto_work.group(lambda: (speaker.encrypt, member.decrypt))(COUNTS)
    assert figures.keys() == {"group_encrypt_us", "group_decrypt_us"}
    assert (speaker.sent, speaker.opened, member.opened) == (4, [], [1, 2, 3, 4])


def test_each_set_up_has_keys_of_its_own_made_before_the_first() -> None:
    steps: list[str] = []

    def prepare() -> Meeting:
        steps.append("keys")

        def meet() -> Pair:
            steps.append("meet")
            return Clear().side, Clear().side

        return meet

    assert crypto_work.set_up(prepare)(COUNTS).keys() == {"setup_us"}
    assert steps == ["keys", "keys", "meet", "meet"]

"""Who may create a queue."""

import pytest

from sottovoce_hosting.rates import Rates
from sottovoce_relay.registration import Policy, Registration
from sottovoce_wire.errors import Code

CODE = "sixteen letters ö"


def registration(
    policy: Policy = "open", *, code: str | None = None, burst: int = 100, space: bool = True
) -> Registration:
    return Registration(policy, code, Rates(1, burst, clock=lambda: 0.0), lambda: space)


@pytest.mark.parametrize("given", ["", "anything"])
def test_an_open_relay_takes_anybody_whatever_code_they_give(given: str) -> None:
    assert registration().may_create(given, "block") is Code.ACCEPTED


@pytest.mark.parametrize("given", ["", CODE])
def test_a_closed_relay_takes_nobody_not_even_with_a_code(given: str) -> None:
    assert registration("closed", code=CODE).may_create(given, "block") is Code.REGISTRATION_CLOSED


def test_a_relay_that_invites_takes_who_knows_the_code() -> None:
    subject = registration("invite", code=CODE)
    assert subject.may_create(CODE, "block") is Code.ACCEPTED
    for wrong in ("", CODE[:-1], CODE + " ", CODE.upper()):
        assert subject.may_create(wrong, "block") is Code.REGISTRATION_CLOSED


def test_without_space_nobody_gets_a_queue_for_now() -> None:
    assert registration(space=False).may_create("", "block") is Code.TRY_AGAIN
    assert registration("closed", space=False).may_create("", "block") is Code.REGISTRATION_CLOSED


def test_each_address_block_gets_so_many_and_those_of_no_address_as_many_as_they_want() -> None:
    subject = registration(burst=2)
    assert [subject.may_create("", "block") for _ in range(3)] == [Code.ACCEPTED, Code.ACCEPTED, Code.TRY_AGAIN]
    assert subject.may_create("", "another") is Code.ACCEPTED
    assert [subject.may_create("", None) for _ in range(3)] == [Code.ACCEPTED] * 3


def test_who_is_refused_for_the_space_uses_nothing_up() -> None:
    has_space = False
    subject = Registration("invite", CODE, Rates(1, 1, clock=lambda: 0.0), lambda: has_space)
    assert subject.may_create(CODE, "block") is Code.TRY_AGAIN
    has_space = True
    assert subject.may_create(CODE, "block") is Code.ACCEPTED


def test_who_guesses_codes_uses_up_what_its_address_block_may() -> None:
    subject = registration("invite", code=CODE, burst=2)
    guesses = [subject.may_create(guess, "block") for guess in ("one", "two", "three")]
    assert guesses == [Code.REGISTRATION_CLOSED] * 2 + [Code.TRY_AGAIN]
    assert subject.may_create(CODE, "block") is Code.TRY_AGAIN
    assert subject.may_create(CODE, "another") is Code.ACCEPTED

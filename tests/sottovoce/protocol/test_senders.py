"""Who a message is from: the device whose session it came on, whatever stands in it."""

import time
from collections.abc import Callable

from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import Incoming
from tests.sottovoce.people import Person

NOW = int(time.time())


def shown(person: Person) -> list[Incoming]:
    """Every message that a person has from strangers."""
    with person.store.transaction() as tables:
        return [message for _, messages, _ in tables.inbox.waiting() for message in messages]


def test_a_message_is_from_the_device_whose_session_it_came_on(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    bob.read(alice.write(bob, "I am Bob", NOW), NOW)
    (message,) = shown(bob)
    assert (message.account_id, message.device_id) == (alice.own.account_id, alice.own.device.device_id)


def test_an_id_that_one_account_has_used_hides_no_message_of_another(
    person: Callable[[str], Person], alice: Person, bob: Person
) -> None:
    carol = person("carol")
    for writer in (alice, carol):
        writer.meet(bob, NOW)
        assert bob.read(writer.write(bob, "my first", NOW), NOW) is Outcome.NEW
    first, second = shown(bob)
    assert first.message_id == second.message_id
    assert {first.account_id, second.account_id} == {alice.own.account_id, carol.own.account_id}

"""Private prekeys stay for as long as an envelope may be on its way, and are wiped then."""

import time

from sottovoce.crypto.prekeys import OwnPrekeys
from sottovoce.registration import _confirm
from sottovoce_wire.directory import Publish
from sottovoce_wire.limits import DAY
from tests.sottovoce.people import Person

NOW = int(time.time())


def test_private_prekeys_are_wiped_31_days_after_they_were_replaced(bob: Person) -> None:
    following = OwnPrekeys.generate(bob.own.device, bob.own.account_id, 2, NOW)
    published = Publish(following.record, bytes(65), [])
    with bob.store.transaction() as tables:
        tables.prekeys.add(following)
        _confirm(tables, published, NOW)
        _confirm(tables, published, NOW + 31 * DAY)
        assert [prekeys.record_id for prekeys in tables.prekeys.records(1)] == [1]
        _confirm(tables, published, NOW + 31 * DAY + 1)
        assert tables.prekeys.records(1) == []
        assert [prekeys.record_id for prekeys in tables.prekeys.records(2)] == [2]

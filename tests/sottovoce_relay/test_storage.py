"""The relay's statements on a real database: owners, keys, what is written, paged, deleted and swept."""

import os
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, func, select

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_relay import storage
from sottovoce_relay.envelopes import Envelope, Fill, Loss, Page, Shared
from sottovoce_relay.states import EnvelopeState
from sottovoce_relay.storage import Door, Owned
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey
from sottovoce_wire.ids import QueueId, SendKeyHash
from tests.sottovoce_relay.parts import (
    DAY,
    KEYS,
    NOW,
    NUMBERS,
    OTHER,
    OWNERS,
    QUEUE,
    SECOND_INVITE,
    door_of,
    envelope,
    stored_bodies,
    two_queues,
)

NOBODYS = QueueId(b"?" * 16)
CONTACT, STRANGER, INVITE, GROUP = KeyClass.CONTACT, KeyClass.STRANGER, KeyClass.INVITE, KeyClass.GROUP


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with two queues."""
    async with two_queues(tmp_path) as opened:
        yield opened


async def write(
    database: Database,
    *arriving: Envelope,
    leaving: Sequence[Envelope] = (),
    refused: Sequence[Envelope] = (),
    now: int = NOW,
) -> Mapping[int, bool]:
    """What the transaction says of repeats."""
    work = partial(storage.write, arriving=arriving, leaving=leaving, refused=refused, now=now)
    return (await database.write(work)).repeats


async def page(database: Database, cursor: int = 0, count: int = 256, size: int = 2**20, now: float = NOW) -> Page:
    got = await database.read(lambda c: storage.read_page(c, QUEUE, cursor, (count, size), now))
    assert got is not None
    return got


async def seqs(database: Database) -> list[int]:
    return await database.read(lambda c: list(c.execute(select(storage.envelopes.c.seq)).scalars()))


async def shared_bodies(database: Database) -> list[int]:
    return await database.read(lambda c: list(c.execute(select(storage.bodies.c.id)).scalars()))


async def fills(database: Database) -> dict[int, tuple[Fill, int]]:
    return await database.read(lambda c: storage.load_fills(c, NUMBERS.values()))


def key_of(text: bytes, kind: KeyClass = GROUP) -> NewSendKey:
    return NewSendKey(SendKeyHash(text.ljust(32, b"\0")), kind)


def keys(count: int) -> list[NewSendKey]:
    return [key_of(b"key %d" % number) for number in range(count)]


async def test_the_migrations_make_the_tables_that_the_statements_know(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"include_name": lambda name, kind, _: kind != "table" or name != "alembic_version"}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), storage.metadata))

    assert await database.read(differences) == []


# --- A queue's owner ----------------------------------------------------------------------------------------------


async def find(
    database: Database, queue: QueueId, owner_key: bytes, named: Sequence[NewSendKey] = (), day: int = DAY
) -> Owned:
    return await database.read(lambda c: storage.find_queue(c, queue, owner_key, named, day))


async def create(
    database: Database, queue: QueueId, named: Sequence[NewSendKey] = (), day: int = DAY, owner_key: bytes = b"3" * 32
) -> Owned:
    return await database.write(lambda c: storage.create_queue(c, queue, owner_key, named, day))


async def doors(database: Database, *asked: bytes) -> dict[bytes, Door]:
    return await database.read(lambda c: storage.load_doors(c, asked))


async def test_a_queue_belongs_to_the_key_that_created_it(database: Database) -> None:
    assert await find(database, QUEUE, OWNERS[QUEUE]) == Owned(Code.ACCEPTED, 1, is_current=True)
    assert await find(database, OTHER, OWNERS[OTHER]) == Owned(Code.ACCEPTED, 2, is_current=True)
    assert await find(database, QUEUE, OWNERS[OTHER]) == Owned(Code.UNKNOWN_QUEUE)
    assert await find(database, NOBODYS, OWNERS[QUEUE]) == Owned(Code.UNKNOWN_QUEUE)


async def test_there_is_something_to_write_for_who_comes_on_a_new_day_or_with_a_new_key(database: Database) -> None:
    contact = NewSendKey(KEYS[CONTACT], CONTACT)
    assert (await find(database, QUEUE, OWNERS[QUEUE], [contact])).is_current
    assert not (await find(database, QUEUE, OWNERS[QUEUE], [contact, key_of(b"new")])).is_current
    assert not (await find(database, QUEUE, OWNERS[QUEUE], [contact], DAY + 1)).is_current
    await create(database, QUEUE, [key_of(b"new")], DAY + 1)
    assert (await find(database, QUEUE, OWNERS[QUEUE], [key_of(b"new")], DAY + 1)).is_current


async def test_creating_a_queue_again_keeps_its_envelopes_and_adds_the_missing_keys(database: Database) -> None:
    await write(database, envelope(1, b"kept"))
    named = [NewSendKey(KEYS[CONTACT], STRANGER), key_of(b"new")]
    assert await create(database, QUEUE, named) == Owned(Code.ACCEPTED, 1, is_current=True)
    assert await stored_bodies(database) == [b"kept"]
    found = await doors(database, door_of(CONTACT), QUEUE + named[1].key_hash)
    assert [door.key_class for door in found.values()] == [CONTACT, GROUP]


async def test_of_a_key_that_is_named_twice_the_first_class_counts(database: Database) -> None:
    await create(database, QUEUE, [key_of(b"new", INVITE), key_of(b"new", CONTACT)])
    door = QUEUE + key_of(b"new").key_hash
    assert (await doors(database, door))[door].key_class is INVITE


async def test_a_queue_has_at_most_256_keys_and_too_many_change_nothing(database: Database) -> None:
    more = keys(limits.MAX_SEND_KEYS - 4)
    add = partial(storage.add_send_keys, queue=QUEUE, number=1)
    assert await database.write(partial(add, keys=more)) is Code.TOO_MANY_SEND_KEYS
    assert await doors(database, QUEUE + more[0].key_hash) == {}
    assert await database.write(partial(add, keys=more[1:])) is Code.ACCEPTED
    assert await database.write(partial(add, keys=more[1:])) is Code.ACCEPTED
    assert await database.write(partial(add, keys=more[:1])) is Code.TOO_MANY_SEND_KEYS
    assert (await create(database, QUEUE, more[:1])).code is Code.TOO_MANY_SEND_KEYS


async def test_doors_are_those_of_the_queue_and_key_that_go_together(database: Database) -> None:
    asked = [
        door_of(INVITE),
        door_of(CONTACT, OTHER),
        QUEUE + b"?" * 32,
        NOBODYS + KEYS[CONTACT],
        OTHER + SECOND_INVITE,
    ]
    assert await doors(database, *asked) == {
        door_of(INVITE): Door(1, INVITE, None),
        door_of(CONTACT, OTHER): Door(2, CONTACT, None),
    }


async def test_a_revoked_key_opens_nothing_and_others_go_on(database: Database) -> None:
    for _ in range(2):
        await database.write(lambda c: storage.revoke_send_key(c, QUEUE, KEYS[CONTACT]))
    assert set(await doors(database, door_of(CONTACT), door_of(GROUP), door_of(CONTACT, OTHER))) == {
        door_of(GROUP),
        door_of(CONTACT, OTHER),
    }


async def test_a_demoted_key_is_a_strangers_and_dies_at_the_time_it_was_first_given(database: Database) -> None:
    for dies_at in (NOW + 10, NOW + 99):
        demote = partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[CONTACT], dies_at=dies_at)
        assert await database.write(demote) is Code.ACCEPTED
    found = await doors(database, *(door_of(kind) for kind in KeyClass), door_of(CONTACT, OTHER))
    assert found[door_of(CONTACT)] == Door(1, CONTACT, NOW + 10)
    assert {kind for kind in KeyClass if found[door_of(kind)].is_limited} == {CONTACT, STRANGER}
    assert not found[door_of(CONTACT, OTHER)].is_limited


async def test_a_key_that_is_not_there_cannot_be_demoted_into_being(database: Database) -> None:
    demote = partial(storage.demote_send_key, queue=QUEUE, key_hash=SendKeyHash(b"?" * 32), dies_at=NOW)
    assert await database.write(demote) is Code.ACCEPTED
    assert await doors(database, QUEUE + b"?" * 32) == {}


async def test_a_deleted_queue_is_unknown_at_once_to_its_owner_and_to_senders(database: Database) -> None:
    await write(database, envelope(1), envelope(2, b"other", queue=OTHER))
    await database.write(lambda c: storage.delete_queue(c, 1))
    assert (await find(database, QUEUE, OWNERS[QUEUE])).code is Code.UNKNOWN_QUEUE
    assert list(await doors(database, door_of(CONTACT), door_of(CONTACT, OTHER))) == [door_of(CONTACT, OTHER)]
    assert await database.read(lambda c: storage.read_page(c, QUEUE, 0, (10, 1000), NOW)) is None
    assert await stored_bodies(database, OTHER) == [b"other"]


async def test_a_deleted_queue_gets_no_keys_any_more_also_if_it_is_made_anew(database: Database) -> None:
    def add(connection: Connection) -> Code:
        return storage.add_send_keys(connection, QUEUE, 1, [key_of(b"late")])

    def refresh(connection: Connection) -> Code:
        return storage.refresh_queue(connection, QUEUE, 1, [key_of(b"late")], DAY + 1)

    await database.write(lambda c: storage.delete_queue(c, 1))
    for _ in range(2):
        assert [await database.write(work) for work in (add, refresh)] == [Code.UNKNOWN_QUEUE] * 2
        await create(database, QUEUE)
    assert await doors(database, QUEUE + key_of(b"late").key_hash) == {}


async def test_who_comes_again_is_seen_and_has_its_keys(database: Database) -> None:
    refresh = partial(storage.refresh_queue, queue=QUEUE, number=1, keys=[key_of(b"new")], day=DAY + 1)
    assert await database.write(refresh) is Code.ACCEPTED
    assert (await find(database, QUEUE, OWNERS[QUEUE], [key_of(b"new")], day=DAY + 1)).is_current
    assert list(await doors(database, QUEUE + key_of(b"new").key_hash)) == [QUEUE + key_of(b"new").key_hash]


async def test_a_queue_that_is_made_anew_has_nothing_of_the_one_before(database: Database) -> None:
    await write(database, envelope(1))
    await database.write(lambda c: storage.delete_queue(c, 2))
    await database.write(lambda c: storage.delete_queue(c, 1))
    while await database.write(lambda c: storage.sweep_remains(c, 10)):
        pass
    assert await create(database, QUEUE) == Owned(Code.ACCEPTED, 3, is_current=True)  # no number is used again
    assert await stored_bodies(database) == []


# --- What the intake must know ------------------------------------------------------------------------------------


async def test_fills_count_what_is_there_and_leave_out_empty_queues(database: Database) -> None:
    assert await fills(database) == {}
    await write(
        database,
        envelope(3, b"123"),
        envelope(5, b"12345", STRANGER),
        envelope(8, b"12", CONTACT, is_limited=True),  # came under a demoted key
    )
    assert await fills(database) == {1: (Fill(3, 10, 2, 7), 8)}
    await write(database, envelope(9, queue=OTHER), leaving=[envelope(5)])
    assert await fills(database) == {1: (Fill(2, 5, 1, 2), 8), 2: (Fill(1, 4, 0, 0), 9)}


async def test_invites_are_counted_key_by_key(database: Database) -> None:
    second, other = QUEUE + SECOND_INVITE, door_of(INVITE, OTHER)
    await write(
        database,
        envelope(1, kind=INVITE),
        envelope(2, kind=INVITE),
        envelope(3, kind=INVITE, invite=second),
        envelope(4, kind=INVITE, queue=OTHER),
        envelope(5),
    )
    counted = await database.read(lambda c: storage.count_invites(c, [door_of(INVITE), second, door_of(GROUP)]))
    assert counted == {door_of(INVITE): 2, second: 1}
    assert await database.read(lambda c: storage.count_invites(c, [other])) == {other: 1}


async def test_what_a_deleted_queue_left_does_not_count_for_the_next_one_with_its_keys(database: Database) -> None:
    await write(database, envelope(1, kind=INVITE))
    await database.write(lambda c: storage.delete_queue(c, 1))
    await create(database, QUEUE, [NewSendKey(KEYS[INVITE], INVITE)])
    assert await database.read(lambda c: storage.count_invites(c, [door_of(INVITE)])) == {}


async def test_the_last_number_is_that_of_an_envelope_or_of_a_body_that_outlived_its_own(database: Database) -> None:
    assert await database.read(storage.last_seq) == 0
    await write(database, envelope(7), envelope(3, queue=OTHER))
    assert await database.read(storage.last_seq) == 7
    await write(database, envelope(8, b"x", shared=Shared(9, b"x")))
    assert await database.read(storage.last_seq) == 9


# --- Envelopes in -------------------------------------------------------------------------------------------------


async def test_what_is_written_comes_out_as_it_went_in(database: Database) -> None:
    sent = [
        envelope(1, b"one", STRANGER),
        envelope(2, b"two", INVITE),
        envelope(5, b"three", CONTACT, is_limited=True, expires_at=NOW + 5),
    ]
    assert await write(database, *sent, envelope(3, queue=OTHER)) == {}
    for before, after in zip(sent, (await page(database)).envelopes, strict=True):
        before.state = EnvelopeState.STORED
        for attribute in Envelope.__slots__:
            assert getattr(before, attribute) == getattr(after, attribute), attribute


async def test_no_key_is_kept_with_an_envelope_but_an_invite_key(database: Database) -> None:
    await write(database, *(envelope(seq, kind=kind) for seq, kind in enumerate(KeyClass)))
    rows = storage.envelopes.c
    kept = await database.read(lambda c: c.execute(select(rows.key_class, rows.invite)).all())
    assert [kind for kind, door in kept if door is not None] == [INVITE]


async def test_the_same_name_again_is_a_repeat_and_not_stored_twice(database: Database) -> None:
    await write(database, envelope(1, b"x", name=b"n"))
    again, other, longer = (envelope(n, body, name=b"n") for n, body in ((2, b"x"), (3, b"y"), (4, b"longer")))
    assert await write(database, again, other, longer) == {2: True, 3: False, 4: False}
    assert await stored_bodies(database) == [b"x"]


async def test_a_repeat_within_one_transaction_is_one_too(database: Database) -> None:
    first, again, other = (envelope(n, body, name=b"n") for n, body in ((1, b"x"), (2, b"x"), (3, b"y")))
    assert await write(database, first, again, other, envelope(4, b"z")) == {2: True, 3: False}
    assert await stored_bodies(database) == [b"x", b"z"]


async def test_the_same_name_in_another_queue_is_another_envelope(database: Database) -> None:
    await write(database, envelope(1, b"x", name=b"n"))
    assert await write(database, envelope(2, b"y", name=b"n", queue=OTHER)) == {}


async def test_a_name_is_free_again_once_its_envelope_is_gone(database: Database) -> None:
    await write(database, envelope(1, b"x", name=b"n"))
    assert await write(database, envelope(2, b"y", name=b"n"), leaving=[envelope(1)]) == {}
    assert await stored_bodies(database) == [b"y"]


async def test_one_that_a_quota_refuses_is_looked_up_and_not_stored(database: Database) -> None:
    await write(database, envelope(1, b"x", name=b"n"))
    refused = [envelope(n, body, name=name) for n, body, name in ((2, b"x", b"n"), (3, b"y", b"n"), (4, b"z", b"m"))]
    assert await write(database, refused=refused) == {2: True, 3: False}
    assert await seqs(database) == [1]


async def test_the_same_transaction_again_after_it_was_committed_changes_nothing(database: Database) -> None:
    await write(database, envelope(1, b"gone"), envelope(2, b"x", name=b"n"))
    batch = [envelope(3, b"new"), envelope(4, b"x", name=b"n"), envelope(5, b"s", shared=Shared(9, b"s"))]
    first = await write(database, *batch, leaving=[envelope(1)])
    assert first == await write(database, *batch, leaving=[envelope(1)]) == {4: True}
    assert await stored_bodies(database) == [b"x", b"new", b"s"]
    assert await fills(database) == {1: (Fill(3, 5, 0, 0), 5)}


# --- Shared bodies ------------------------------------------------------------------------------------------------


def sharing(*numbers: int, body: bytes = b"shared") -> list[Envelope]:
    """Envelopes of QUEUE that point to the body 100."""
    return [envelope(seq, body, shared=Shared(100, body)) for seq in numbers]


async def test_a_shared_body_is_stored_once_and_freed_with_its_last_pointer(database: Database) -> None:
    elsewhere = envelope(3, b"shared", queue=OTHER, shared=Shared(100, b"shared"))
    await write(database, *sharing(1, 2), elsewhere)
    whole = select(func.count(storage.envelopes.c.body))
    assert await database.read(lambda c: c.execute(whole).scalar_one()) == 0
    assert await stored_bodies(database) == [b"shared"] * 2
    assert await stored_bodies(database, OTHER) == [b"shared"]
    for gone in (*sharing(1, 2), elsewhere):
        assert await shared_bodies(database) == [100]
        await write(database, leaving=[gone])
    assert await shared_bodies(database) == []


async def test_a_pointer_that_comes_after_the_others_are_gone_brings_the_body_again(database: Database) -> None:
    await write(database, *sharing(1))
    await write(database, *sharing(2), leaving=sharing(1))
    assert await stored_bodies(database) == [b"shared"]


async def test_a_shared_body_that_no_envelope_needed_is_not_left_behind(database: Database) -> None:
    await write(database, envelope(1, b"shared", name=b"n"))
    repeat = envelope(2, b"shared", name=b"n", shared=Shared(100, b"shared"))
    assert await write(database, repeat) == {2: True}
    assert await shared_bodies(database) == []


async def test_the_repeat_of_a_shared_envelope_is_known_by_its_body(database: Database) -> None:
    await write(database, envelope(1, b"shared", name=b"n", shared=Shared(100, b"shared")))
    assert await write(database, envelope(2, b"shared", name=b"n"), envelope(3, b"SHARED", name=b"n")) == {
        2: True,
        3: False,
    }


async def test_a_shared_body_goes_with_its_last_pointer_when_that_expires(database: Database) -> None:
    for seq, ends in ((1, NOW), (2, NOW + 5)):
        await write(database, envelope(seq, b"x", expires_at=ends, shared=Shared(100, b"x")))
    for now, left in ((NOW, [100]), (NOW + 5, [])):
        await database.write(partial(storage.sweep, before=now, count=10))
        assert await shared_bodies(database) == left


# --- Envelopes out ------------------------------------------------------------------------------------------------


async def test_pages_follow_the_cursor_in_order_within_their_allowance(database: Database) -> None:
    await write(database, *(envelope(seq, b"%d" % seq * 10) for seq in (1, 2, 4, 7, 9)))
    await write(database, envelope(3, queue=OTHER), envelope(8, queue=OTHER))
    first = await page(database, count=2)
    assert ([envelope.seq for envelope in first.envelopes], first.cursor, first.more) == ([1, 2], 2, True)
    second = await page(database, cursor=2, size=25)
    assert ([envelope.seq for envelope in second.envelopes], second.cursor, second.more) == ([4, 7], 7, True)
    third = await page(database, cursor=7)
    assert ([envelope.seq for envelope in third.envelopes], third.cursor, third.more) == ([9], 9, False)
    last = await page(database, cursor=9)
    assert (last.envelopes, last.cursor, last.head, last.more) == ((), 9, 9, False)


async def test_a_page_whose_first_envelope_does_not_fit_says_that_more_follows(database: Database) -> None:
    await write(database, envelope(1, bytes(100)))
    stuck = await page(database, size=99)
    assert (stuck.envelopes, stuck.cursor, stuck.more) == ((), 0, True)


async def test_an_expired_envelope_is_passed_over_and_takes_no_credit(database: Database) -> None:
    for seq, ends in ((1, NOW + 10), (2, NOW + 11), (3, NOW + 10)):
        await write(database, envelope(seq, bytes(60), expires_at=ends))
    got = await page(database, now=NOW + 10, size=100)
    assert ([envelope.seq for envelope in got.envelopes], got.cursor, got.more) == ([2], 3, False)


async def test_a_page_ends_where_the_next_envelope_that_lives_does_not_fit_whatever_expired_in_between(
    database: Database,
) -> None:
    rows = [(1, 10, True), (2, 50, False), (4, 0, True), (5, 30, True), (6, 90, False), (7, 20, True), (9, 5, False)]
    for seq, size, lives in rows:
        await write(database, envelope(seq, bytes(size), expires_at=NOW + lives), envelope(10 + seq, queue=OTHER))

    def expected(cursor: int, count: int, size: int) -> tuple[list[int], int, bool]:
        behind = [row for row in rows if row[0] > cursor]
        given = []
        for seq, length, lives in behind[:count]:
            size -= length if lives else 0
            if size < 0:
                break
            given += [seq] if lives else []
            cursor = seq
        return given, cursor, any(seq > cursor for seq, _, _ in behind)

    def compare(connection: Connection) -> int:
        compared = 0
        for cursor, count, size in product(range(11), range(9), (0, 9, 10, 39, 40, 41, 59, 60, 1000)):
            got = storage.read_page(connection, QUEUE, cursor, (count, size), NOW)
            assert got is not None
            wanted = expected(cursor, count, size)
            assert ([e.seq for e in got.envelopes], got.cursor, got.more) == wanted, (cursor, count, size)
            compared += len(wanted[0])
        return compared

    assert await database.read(compare) > 500


async def test_a_page_takes_two_statements_however_much_it_looks_at(database: Database) -> None:
    """And the first of them gives one row: every row costs a turn of Python's lock."""
    await write(database, *(envelope(seq) for seq in range(1, 100)))
    statements: list[str] = []

    def note(_c: object, _cursor: object, sql: str, *_: object) -> None:
        statements.append(sql)

    def read(connection: Connection) -> list[int]:
        event.listen(connection, "before_cursor_execute", note)
        taken = []
        for cursor in (0, 50, 99):
            statements.clear()
            storage.read_page(connection, QUEUE, cursor, (100, 1000), NOW)
            taken.append(len(statements))
        event.remove(connection, "before_cursor_execute", note)
        return taken

    assert await database.read(read) == [2, 2, 1]


async def test_an_emptied_queue_has_no_head(database: Database) -> None:
    await write(database, envelope(1))
    await write(database, leaving=[envelope(1)])
    assert await page(database) == Page(1, (), cursor=0, head=0, more=False, expired=0, told=0)


# --- Envelopes gone -----------------------------------------------------------------------------------------------


async def test_a_deletion_takes_exactly_what_it_names_and_again_changes_nothing(database: Database) -> None:
    await write(database, *(envelope(seq) for seq in range(1, 6)), envelope(6, b"other", queue=OTHER))
    for _ in range(2):
        await write(database, leaving=[envelope(2), envelope(4), envelope(99)])
        assert await seqs(database) == [1, 3, 5, 6]


async def test_a_deletion_says_how_many_were_there(database: Database) -> None:
    await write(database, *(envelope(seq) for seq in range(1, 200)))
    leaving = [envelope(seq) for seq in range(150, 300)]
    work = partial(storage.write, arriving=(), leaving=leaving, refused=(), now=NOW)
    assert [(await database.write(work)).deleted for _ in range(2)] == [50, 0]


async def test_what_has_expired_and_is_not_swept_is_no_envelope_to_repeat(database: Database) -> None:
    first, again = envelope(1, name=b"name", expires_at=NOW + 9), envelope(2, name=b"name", expires_at=NOW + 99)
    await write(database, first, envelope(3, b"other", expires_at=NOW + 9))
    assert await write(database, again, now=NOW + 8) == {2: True}
    assert await write(database, refused=[again], now=NOW + 9) == {}
    written = await database.write(partial(storage.write, arriving=[again], leaving=(), refused=(), now=NOW + 9))
    assert (written.repeats, [gone.seq for gone in written.replaced]) == ({}, [1])
    assert sorted(await seqs(database)) == [2, 3]
    assert (await page(database)).expired == 0


async def test_another_body_does_not_replace_what_has_expired(database: Database) -> None:
    await write(database, envelope(1, name=b"name", expires_at=NOW))
    other, again = envelope(2, b"other body", name=b"name"), envelope(3, name=b"name")
    assert await write(database, other) == {2: False}
    assert await seqs(database) == [1]
    assert await write(database, other, again) == {2: False}
    assert await seqs(database) == [3]


async def test_what_comes_twice_in_place_of_one_that_has_expired_is_stored_once(database: Database) -> None:
    await write(database, envelope(1, name=b"name", expires_at=NOW))
    both = [envelope(seq, name=b"name", expires_at=NOW + 9) for seq in (2, 3)]
    written = await database.write(partial(storage.write, arriving=both, leaving=(), refused=(), now=NOW))
    assert (written.repeats, [gone.seq for gone in written.replaced]) == ({3: True}, [1])
    assert await seqs(database) == [2]


async def test_what_has_expired_is_replaced_also_beside_one_that_was_held_for_longer(database: Database) -> None:
    await write(database, envelope(5, name=b"name", expires_at=NOW))
    assert await write(database, envelope(4, b"held", queue=OTHER), envelope(6, name=b"name")) == {}
    assert sorted(await seqs(database)) == [4, 6]


async def test_what_waited_for_the_disk_until_it_expired_is_not_taken_for_one_of_before(database: Database) -> None:
    late = [envelope(seq, name=b"name", expires_at=NOW) for seq in (1, 2)]
    assert await write(database, *late) == {2: True}
    assert await seqs(database) == [1]


async def test_a_body_that_has_expired_goes_with_the_last_envelope_that_a_repeat_replaces(database: Database) -> None:
    shared = Shared(7, b"body")
    await write(database, envelope(8, name=b"name", expires_at=NOW, shared=shared))
    await write(database, envelope(9, name=b"name", expires_at=NOW + 9, shared=Shared(8, b"body")))
    assert await shared_bodies(database) == [8]


async def test_a_sweep_deletes_what_expired_and_counts_it_as_lost_until_the_owner_is_told(database: Database) -> None:
    for seq, ends in ((1, NOW - 1), (2, NOW + 1), (3, NOW)):
        await write(database, envelope(seq, expires_at=ends))
    await write(database, envelope(4, queue=OTHER, kind=STRANGER, expires_at=NOW - 5))
    swept, losses = await database.write(lambda c: storage.sweep(c, NOW, 10))
    assert [(gone.seq, gone.number, gone.queue, gone.size) for gone in swept] == [
        (4, 2, OTHER, 4),
        (1, 1, QUEUE, 4),
        (3, 1, QUEUE, 4),
    ]
    assert set(losses) == {Loss(QUEUE, 2, 0), Loss(OTHER, 1, 0)}
    assert await seqs(database) == [2]
    for told in (2, 2, 1):
        await database.write(partial(storage.told_expired, queue=QUEUE, total=told))
    got = await page(database)
    assert (got.expired, got.told) == (2, 2)


async def test_what_is_swept_says_what_it_counted_for(database: Database) -> None:
    await write(
        database, envelope(1, b"123", INVITE, name=b"n", expires_at=NOW), envelope(2, kind=STRANGER, expires_at=NOW)
    )
    swept, _ = await database.write(lambda c: storage.sweep(c, NOW, 10))
    invite = (b"n".ljust(16, b"\0"), 0, door_of(INVITE), 3)
    assert [(gone.name, gone.is_limited, gone.invite, gone.size) for gone in swept] == [
        invite,
        (b"%016d" % 2, 1, None, 4),
    ]


async def test_a_sweep_takes_the_oldest_first_and_no_more_than_its_batch(database: Database) -> None:
    await write(database, *(envelope(age, expires_at=NOW - age) for age in (1, 3, 2)))
    batches = [await database.write(lambda c: storage.sweep(c, NOW, 2)) for _ in range(3)]
    assert [[gone.seq for gone in swept] for swept, _ in batches] == [[3, 2], [1], []]
    assert batches[1][1] == [Loss(QUEUE, 3, 0)]
    assert batches[2][1] == []


async def test_nobody_is_told_of_what_a_deleted_queue_lost(database: Database) -> None:
    await write(database, envelope(1, expires_at=NOW))
    await database.write(lambda c: storage.delete_queue(c, 1))
    swept, losses = await database.write(lambda c: storage.sweep(c, NOW, 10))
    assert ([gone.queue for gone in swept], losses) == ([None], [])


async def test_demoted_keys_are_forgotten_at_their_time_batch_by_batch(database: Database) -> None:
    for kind, ends in ((CONTACT, NOW), (GROUP, NOW - 1), (INVITE, NOW + 1)):
        await database.write(partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[kind], dies_at=ends))
    swept = [await database.write(lambda c: storage.sweep_keys(c, NOW, 1)) for _ in range(3)]
    assert {door for doors in swept for door in doors} == {door_of(CONTACT), door_of(GROUP)}
    assert [len(doors) for doors in swept] == [1, 1, 0]
    left = await doors(database, *(door_of(kind) for kind in KeyClass))
    assert set(left) == {door_of(INVITE), door_of(STRANGER)}


async def test_queues_whose_owners_stay_away_are_deleted_batch_by_batch(database: Database) -> None:
    await write(database, envelope(1))
    assert await database.write(lambda c: storage.sweep_idle(c, DAY, 10)) == []
    await database.write(lambda c: storage.seen_all(c, [2], DAY + 1))
    assert await database.write(lambda c: storage.sweep_idle(c, DAY + 1, 10)) == [(1, QUEUE)]
    assert await database.write(lambda c: storage.sweep_idle(c, DAY + 1, 10)) == []
    assert (await find(database, QUEUE, OWNERS[QUEUE])).code is Code.UNKNOWN_QUEUE
    assert await doors(database, door_of(CONTACT)) == {}
    assert [await database.write(lambda c: storage.sweep_idle(c, DAY + 9, 1)) for _ in range(2)] == [[(2, OTHER)], []]


async def test_no_queue_is_deleted_for_a_day_that_was_a_wrong_clocks(database: Database) -> None:
    ten_years = 3650
    assert await database.write(lambda c: storage.sweep_idle(c, DAY + ten_years, 10)) == []
    assert len(await database.write(lambda c: storage.sweep_idle(c, DAY + ten_years - 1, 10))) == 2


async def test_the_day_an_owner_was_seen_only_grows(database: Database) -> None:
    for day in (DAY + 5, DAY + 1):
        await database.write(partial(storage.seen_all, numbers=[1, 2], day=day))
    assert await database.write(lambda c: storage.sweep_idle(c, DAY + 5, 10)) == []
    assert len(await database.write(lambda c: storage.sweep_idle(c, DAY + 6, 10))) == 2


async def test_what_a_deleted_queue_left_goes_batch_by_batch_and_its_row_last(database: Database) -> None:
    assert not await database.write(lambda c: storage.sweep_remains(c, 2))
    await write(database, *(envelope(seq) for seq in (1, 2)), *sharing(3, 4), envelope(5, queue=OTHER))
    await database.write(lambda c: storage.delete_queue(c, 1))
    left = []
    for _ in range(4):
        again = await database.write(lambda c: storage.sweep_remains(c, 2))
        rows = await database.read(lambda c: c.execute(select(func.count()).select_from(storage.queues)).scalar_one())
        left.append((again, len(await seqs(database)), len(await shared_bodies(database)), rows))
    assert left == [(True, 3, 1, 2), (True, 1, 0, 2), (True, 1, 0, 1), (False, 1, 0, 1)]


# --- The file -----------------------------------------------------------------------------------------------------


async def test_freed_space_goes_back_to_the_system_in_steps(database: Database) -> None:
    some = [envelope(seq, bytes(8000)) for seq in range(200)]  # a page each
    await write(database, *some)
    await write(database, leaving=some)
    before = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    given = await database.write(lambda c: storage.return_space(c, 50, 40))
    assert 0 < given <= 40  # Python 3.12 frees a page with every other step
    after = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    assert after == before - given
    assert await database.write(lambda c: storage.return_space(c, 250, 40)) == 0  # too little to bother


@pytest.mark.parametrize("shared", [None, 7])
async def test_a_deleted_envelope_leaves_no_bytes_in_the_file(
    database: Database, tmp_path: Path, shared: int | None
) -> None:
    secret = os.urandom(32)
    subject = envelope(1, secret, shared=Shared(shared, secret) if shared else None)
    await write(database, subject)
    assert any(secret in path.read_bytes() for path in tmp_path.iterdir())
    await write(database, leaving=[subject])
    await database.empty_log()
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


async def test_the_log_is_emptied_unless_somebody_reads_an_older_state(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "relay.db-wal"
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        await write(database, envelope(1))
        with pytest.raises(DatabaseError):
            await database.empty_log()
        await write(database, envelope(2))
        assert log.stat().st_size
        reader.execute("COMMIT")
    await database.empty_log()
    assert log.stat().st_size == 0
    assert len(await stored_bodies(database)) == 2


# --- All statements -----------------------------------------------------------------------------------------------


def walks(connection: Connection, sql: str, parameters: object) -> list[str]:
    """The tables that the statement goes through from end to end. Not a subselect whose rows are fetched one by one up
    to a limit: what that reads is a line of its own."""
    explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)  # type: ignore[arg-type]
    plan = [row.detail for row in explained if not row.detail.startswith("SCAN CONSTANT")]
    fetched = [line.replace("CO-ROUTINE", "SCAN") for line in plan if line.startswith("CO-ROUTINE (subquery-")]
    bounded = fetched if " LIMIT " in sql else []
    return [f"{line}: {sql}" for line in plan if line.startswith("SCAN ") and line not in bounded]


async def test_no_statement_walks_a_whole_table(database: Database) -> None:
    statements: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, sql: str, parameters: object, _context: object, many: bool) -> None:
        statements.append((sql, parameters[0] if many else parameters))  # type: ignore[index] # a list when many

    def everything(connection: Connection) -> list[str]:
        event.listen(connection, "before_cursor_execute", note)
        storage.find_queue(connection, QUEUE, OWNERS[QUEUE], keys(1), DAY)
        storage.create_queue(connection, QUEUE, OWNERS[QUEUE], keys(1), DAY + 1)
        storage.load_doors(connection, [door_of(), door_of(INVITE)])
        storage.load_fills(connection, [1, 2])
        storage.count_invites(connection, [door_of(INVITE), door_of(GROUP)])
        storage.last_seq(connection)
        storage.write(
            connection, [*sharing(1), envelope(2, name=b"n"), envelope(3, name=b"n")], sharing(4), [envelope(5)], NOW
        )
        storage.write(connection, [envelope(6, name=b"n")], [], [], NOW + 7200)
        storage.read_page(connection, QUEUE, 0, (10, 1000), NOW)
        storage.sweep(connection, NOW + 3600, 10)
        storage.told_expired(connection, QUEUE, 1)
        storage.revoke_send_key(connection, QUEUE, KEYS[GROUP])
        storage.demote_send_key(connection, QUEUE, KEYS[CONTACT], NOW)
        storage.sweep_keys(connection, NOW, 10)
        storage.sweep_idle(connection, DAY + 9, 10)
        storage.sweep_remains(connection, 10)
        event.remove(connection, "before_cursor_execute", note)
        return [walk for sql, parameters in statements for walk in walks(connection, sql, parameters)]

    found = await database.write(everything)
    assert len(statements) > 30
    assert found == []

"""The counter and its witness: a copy that is put back is noticed and sends nothing under old keys; nothing else is
taken for one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.events import Event, StoreRestored, WitnessUnwritable
from sottovoce.protocol import contacts, sessions
from sottovoce.protocol.content import Text
from sottovoce.protocol.reading import Outcome
from sottovoce.store import witness
from sottovoce.store.counter import NUMBERS, start_anew
from sottovoce.store.database import COMMITS_IN_LOG, Store, open_store
from sottovoce.store.prekeys import STOCK
from sottovoce.store.witness import MAX_COUNT, open_witness
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import AccountId, MessageId
from tests.sottovoce.people import Person

NOW = 1_800_000_000


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the witnesses of this test's stores are."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "sottovoce"


@pytest.fixture
def path(tmp_path: Path, state: Path) -> Path:
    """A store that was opened once, alone in its folder."""
    path = tmp_path / "data" / "store.db"
    open_store(path).close()
    return path


def copy(path: Path) -> Path:
    return shutil.copytree(path.parent, path.parent.with_name("backup"))


def put_back(backup: Path, path: Path) -> None:
    shutil.rmtree(path.parent)
    shutil.copytree(backup, path.parent)


def is_restored(path: Path) -> bool:
    store = open_store(path)
    store.close()
    return store.is_restored


def write(store: Store, times: int = 1) -> None:
    for number in range(times):
        with store.transaction() as tables:
            tables.peers.pin_name(f"name{number}", AccountId(bytes(32)))


def events(store: Store) -> list[type[Event]]:
    with store.transaction() as tables:
        found = []
        while (first := tables.events.first()) is not None:
            tables.events.remove(first[0])
            found.append(type(first[1]))
    return found


def witness_file(state: Path) -> Path:
    (file,) = (file for file in state.iterdir() if file.suffix == "")
    return file


def test_a_store_that_is_opened_again_and_again_is_no_copy(path: Path) -> None:
    assert [is_restored(path) for _ in range(5)] == [False] * 5


def test_a_copy_that_is_put_back_is_noticed_once_and_told(path: Path) -> None:
    backup = copy(path)
    write(store := open_store(path))
    store.close()
    put_back(backup, path)
    store = open_store(path)
    assert store.is_restored
    assert events(store) == [StoreRestored]
    store.close()
    assert not is_restored(path)


def test_a_copy_of_a_running_store_is_noticed_after_so_many_transactions(path: Path, state: Path) -> None:
    """Programs run for weeks and are backed up meanwhile; then one is killed. Nothing is closed."""
    store = open_store(path)
    backup = copy(path)
    write(store, COMMITS_IN_LOG)
    kept = shutil.copytree(state, state.with_name("as killed"), ignore=shutil.ignore_patterns("*.lock"))
    killed = open_store(backup / path.name, state=kept)
    assert killed.is_restored
    killed.close()
    store.close()


def test_a_running_store_that_is_killed_is_no_copy(path: Path, state: Path) -> None:
    """At any number of transactions, so before and after the counter went on."""
    store = open_store(path)
    for number in range(2 * COMMITS_IN_LOG):
        write(store)
        if number % 16 and store._commits + 1 < COMMITS_IN_LOG:
            continue
        folder = path.parents[1] / f"killed {number}"
        left = shutil.copytree(path.parent, folder / "data") / path.name
        home = shutil.copytree(state, folder / "home", ignore=shutil.ignore_patterns("*.lock"))
        killed = open_store(left, state=home)
        assert not killed.is_restored
        killed.close()
    store.close()


def test_a_program_killed_between_the_store_and_its_witness_is_no_copy(path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from sottovoce.store import counter
from sottovoce.store.database import open_store
counter._leave_witness = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_store(Path({str(path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not is_restored(path)


def test_a_copy_is_as_good_as_put_back_when_the_program_is_killed_while_it_starts_anew(path: Path) -> None:
    """Noticing and starting anew are one transaction: a kill after it leaves nothing that would have to be noticed."""
    backup = copy(path)
    write(store := open_store(path))
    store.close()
    put_back(backup, path)
    program = f"""
import os, signal
from pathlib import Path
from sottovoce.store import counter
from sottovoce.store.database import open_store
counter.start_anew = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_store(Path({str(path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert is_restored(path)


def test_a_store_on_a_machine_that_has_no_witness_of_it_counts_as_a_copy(path: Path, state: Path) -> None:
    shutil.rmtree(state)
    assert is_restored(path)
    assert not is_restored(path)


@pytest.mark.parametrize("content", [b"", b"half", bytes(36), b"x" * 5000])
def test_a_witness_that_cannot_be_read_counts_as_none(path: Path, state: Path, content: bytes) -> None:
    witness_file(state).write_bytes(content)
    assert is_restored(path)
    assert not is_restored(path)


def test_a_witness_that_tells_a_count_beyond_all_bounds_counts_as_none(path: Path, state: Path) -> None:
    store_id = bytes.fromhex(witness_file(state).name)
    for count, seen in ((MAX_COUNT, MAX_COUNT), (MAX_COUNT + 1, None)):
        opened = open_witness(state, store_id)
        assert opened is not None
        opened.write(count)
        opened.close()
        again = open_witness(state, store_id)
        assert again is not None
        assert again.count == seen
        again.close()


def test_without_a_place_for_the_witness_a_store_works_and_says_so_and_is_never_taken_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    for _ in range(3):
        store = open_store(tmp_path / "store.db")
        assert not store.is_restored
        assert events(store) == [WitnessUnwritable]
        store.close()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert not is_restored(tmp_path / "store.db")


def test_a_store_of_somebody_without_a_home_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    store = open_store(tmp_path / "store.db")
    assert events(store) == [WitnessUnwritable]
    store.close()
    assert not is_restored(tmp_path / "store.db")


def test_a_witness_that_can_be_read_alone_still_tells(path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = copy(path)
    open_store(path).close()
    put_back(backup, path)
    monkeypatch.setattr(witness, "open_witness", lambda *_: None)
    assert is_restored(path)


def test_two_copies_of_a_store_are_not_open_at_once(path: Path) -> None:
    backup = copy(path)
    store = open_store(path)
    with pytest.raises(errors.StoreInUse, match="a copy of this store"):
        open_store(backup / path.name)
    store.close()
    open_store(backup / path.name).close()


def test_stores_of_one_state_folder_do_not_hinder_each_other(path: Path) -> None:
    one, other = open_store(path), open_store(path.with_name("other.db"))
    assert (one.is_restored, other.is_restored) == (False, False)
    one.close()
    other.close()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.usefixtures("path")
def test_the_witness_is_readable_by_its_owner_alone_and_names_nothing(state: Path) -> None:
    file = witness_file(state)
    assert state.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.name) == 32


# --- What a restored store does ---


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Both have written, and each is the other's contact."""
    for one, other in ((alice, bob), (bob, alice)):
        with one.store.transaction() as tables:
            tables.peers.put(other.peer())
            contacts.accept(tables, other.own.account_id)
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    return alice, bob


def restore(person: Person) -> None:
    with person.store.transaction() as tables:
        start_anew(tables, NOW)


def test_a_restored_store_sends_nothing_under_its_old_sessions(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    old = alice.sending(bob).session_id
    restore(alice)
    text = Text(MessageId(bytes(16)), NOW * 1000, "under a used key")
    with alice.store.transaction() as tables:
        device = bob.own.account_id, bob.own.device.device_id
        assert sessions.fan_out(tables, alice.own, bob.own.account_id, text, Ttl.MONTH, NOW) == []
        assert sessions.acknowledge(tables, alice.own, *device, NOW) is None
        assert sessions.missing(tables, bob.own.account_id, NOW) == [bob.own.device.device_id]
        assert list(tables.wants.of_contacts()) == [device]
    alice.mend(bob, NOW)
    assert alice.sending(bob).session_id != old
    assert bob.read(alice.write(bob, "under a new one", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "heard", NOW), NOW) is Outcome.NEW
    assert alice.sending(bob).session_id == bob.sending(alice).session_id


def test_a_restored_store_still_reads_what_comes_on_its_old_sessions(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    restore(alice)
    assert alice.read(bob.write(alice, "on the old one", NOW), NOW) is Outcome.NEW
    with alice.store.transaction() as tables:
        assert sessions.missing(tables, bob.own.account_id, NOW) == [bob.own.device.device_id]


def test_what_waits_in_the_outbox_stays_it_is_final(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "waits", NOW)
    with alice.store.transaction() as tables:
        tables.outbox.add(envelope, NOW)
    restore(alice)
    with alice.store.transaction() as tables:
        assert tables.outbox.size() == 1


def test_what_a_restored_store_publishes_has_numbers_that_the_keyserver_has_never_seen(alice: Person) -> None:
    restore(alice)
    with alice.store.transaction() as tables:
        current = tables.prekeys.current()
        assert current is not None
        assert current.record_id == NOW
        assert not tables.prekeys.is_newest_published()
        assert tables.account.next_contact_sequence() == NOW + 1
        assert [prekey.id - NOW for prekey in tables.prekeys.unpublished(1_000)] == [*range(1, STOCK + 1)]


def test_a_restored_store_has_all_its_one_time_prekeys_replaced_and_keeps_those_that_it_has(alice: Person) -> None:
    """Of those at the keyserver it may lack some, and whoever got one would write what nobody can read. Of its own some
    may have been handed out, and the message be on its way."""
    restore(alice)
    with alice.store.transaction() as tables:
        account = tables.account.get()
        assert account is not None
        assert account.one_time_from == NOW + 1
        assert all(tables.prekeys.one_time(number) is not None for number in range(1, STOCK + 1))


def test_a_clock_that_is_a_century_ahead_uses_up_no_numbers(alice: Person) -> None:
    with alice.store.transaction() as tables:
        start_anew(tables, NUMBERS)
        current = tables.prekeys.current()
        assert current is not None
        assert current.record_id == STOCK

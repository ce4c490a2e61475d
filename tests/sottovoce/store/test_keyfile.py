"""The key file: what it holds, how it is refused, and that a kill leaves no half of one."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from keyring.backends import fail, null

from sottovoce import errors
from sottovoce.store import keyfile, os_keyring
from sottovoce.store.unlock import KEY_FILE, Keyring, Passphrase, Unlock
from tests.sottovoce.store.keyrings import InMemory, using

HORSE = Passphrase("correct horse")
NOWHERE, NOTHING = fail.Keyring(), null.Keyring()  # type: ignore[no-untyped-call] # the package's own
WAYS: list[Unlock] = [KEY_FILE, HORSE, Keyring()]


@pytest.fixture(autouse=True)
def ring() -> Iterator[InMemory]:
    with using(InMemory()) as ring:
        yield ring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db.key"


@pytest.mark.parametrize("unlock", [*WAYS, Passphrase("пароль 🔑")], ids=repr)
def test_the_keys_that_were_made_are_read_again(path: Path, unlock: Unlock) -> None:
    keys = keyfile.create_keys(path, unlock)
    assert len(keys.database) == len(keys.root) == keyfile.KEY_LENGTH
    assert keys.database != keys.root
    assert keyfile.read_keys(path, unlock) == keys


def test_with_a_passphrase_the_key_is_not_in_the_file(path: Path) -> None:
    keys = keyfile.create_keys(path, HORSE)
    assert keys.database not in path.read_bytes()
    assert keys.root not in path.read_bytes()
    bare = path.with_name("bare")
    keys = keyfile.create_keys(bare, KEY_FILE)
    assert keys.database + keys.root in bare.read_bytes()


def test_neither_key_can_be_put_in_the_place_of_the_other(path: Path) -> None:
    keyfile.create_keys(path, Keyring())
    whole = path.read_bytes()
    path.write_bytes(whole[:-120] + whole[-60:] + whole[-120:-60])
    with pytest.raises(errors.StoreUnreadable):
        keyfile.read_keys(path, Keyring())


@pytest.mark.parametrize("unlock", WAYS, ids=repr)
def test_a_file_cut_at_any_length_or_with_a_tail_is_refused(path: Path, unlock: Unlock) -> None:
    keyfile.create_keys(path, unlock)
    whole = path.read_bytes()
    for content in [whole[:length] for length in range(len(whole))] + [whole + b"\x00"]:
        path.write_bytes(content)
        with pytest.raises(errors.StoreUnreadable):
            keyfile.read_keys(path, unlock)


@pytest.mark.parametrize(("at", "error"), [(-61, errors.WrongPassphrase), (-1, errors.StoreUnreadable)])
def test_an_altered_wrapped_key_is_refused(path: Path, at: int, error: type[errors.StoreError]) -> None:
    """Where the passphrase opens the first of the two, it is not the passphrase that is wrong."""
    keyfile.create_keys(path, HORSE)
    altered = bytearray(path.read_bytes())
    altered[at] ^= 1
    path.write_bytes(altered)
    with pytest.raises(error):
        keyfile.read_keys(path, HORSE)


def test_a_file_that_asks_for_all_the_memory_there_is_is_refused(path: Path) -> None:
    keyfile.create_keys(path, HORSE)
    whole = path.read_bytes()
    at = len(keyfile.MAGIC) + 1 + 16 + 4
    path.write_bytes(whole[:at] + (2**40).to_bytes(8, "big") + whole[at + 8 :])
    with pytest.raises(errors.StoreUnreadable, match="damaged"):
        keyfile.read_keys(path, HORSE)


def test_a_passphrase_for_a_store_without_one_is_refused(path: Path) -> None:
    keyfile.create_keys(path, KEY_FILE)
    with pytest.raises(errors.WrongPassphrase, match="no passphrase"):
        keyfile.read_keys(path, HORSE)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_bare_key_that_others_may_read_is_refused(path: Path) -> None:
    keyfile.create_keys(path, KEY_FILE)
    path.chmod(0o644)
    with pytest.raises(errors.StoreUnreadable, match="others may read") as refused:
        keyfile.read_keys(path, KEY_FILE)
    assert "chmod 600" in refused.value.diagnostics()


def test_what_a_kill_left_half_written_is_replaced(path: Path) -> None:
    path.with_name("store.db.key.new").write_bytes(b"half")
    keys = keyfile.create_keys(path, KEY_FILE)
    assert keyfile.read_keys(path, KEY_FILE) == keys
    assert not path.with_name("store.db.key.new").exists()


def test_the_passphrase_and_the_keys_are_not_in_what_is_printed_of_them(path: Path) -> None:
    assert "correct" not in repr(HORSE)
    assert repr(keyfile.create_keys(path, KEY_FILE)) == "Keys()"


@pytest.mark.parametrize("old", WAYS, ids=repr)
@pytest.mark.parametrize("new", [*WAYS, Passphrase("battery staple")], ids=repr)
def test_every_way_of_keeping_the_key_changes_into_every_other(path: Path, old: Unlock, new: Unlock) -> None:
    keys = keyfile.create_keys(path, old)
    keyfile.change_key_file(path, old, new)
    assert keyfile.read_keys(path, new) == keys
    if old != new:
        with pytest.raises((errors.WrongPassphrase, errors.PassphraseNeeded, errors.KeyringNeeded)):
            keyfile.read_keys(path, old)


@pytest.mark.parametrize("kept", WAYS, ids=repr)
@pytest.mark.parametrize("tried", WAYS, ids=repr)
def test_a_key_kept_in_another_way_is_refused_with_what_is_needed(path: Path, kept: Unlock, tried: Unlock) -> None:
    keyfile.create_keys(path, kept)
    needed = {KEY_FILE: errors.WrongPassphrase, HORSE: errors.PassphraseNeeded, Keyring(): errors.KeyringNeeded}
    if kept != tried:
        with pytest.raises(needed[kept]):
            keyfile.read_keys(path, tried)


@pytest.mark.parametrize("old", WAYS, ids=repr)
@pytest.mark.parametrize("new", WAYS, ids=repr)
def test_a_change_that_ends_at_any_write_leaves_the_old_way_or_the_new_one(
    path: Path, old: Unlock, new: Unlock, ring: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write to the file system or the keyring fails in turn, and everything after it."""
    for written in range(12):
        path.unlink(missing_ok=True)
        keys = keyfile.create_keys(path, old)
        with monkeypatch.context() as patched:
            ends = _end_after(written, patched, ring)
            with suppress(OSError, errors.KeyringUnavailable):
                keyfile.change_key_file(path, old, new)
        assert keys in _opened(path, old, new)
        if not ends():
            break
    else:
        raise AssertionError("a change writes more often than that")


def _end_after(written: int, patched: pytest.MonkeyPatch, ring: InMemory) -> Callable[[], bool]:
    """Let so many writes through; whether one was refused."""
    count = [0]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def perform(*arguments: object, **options: object) -> object:
            count[0] += 1
            if count[0] > written:
                raise OSError("no more")
            return call(*arguments, **options)

        return perform

    for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace")):
        patched.setattr(owner, name, counted(getattr(owner, name)))
    for name in ("set_password", "delete_password"):
        patched.setattr(ring, name, counted(getattr(ring, name)))
    return lambda: count[0] > written


def _opened(path: Path, *ways: Unlock) -> list[keyfile.Keys]:
    found = []
    for unlock in ways:
        with suppress(errors.StoreError):
            found.append(keyfile.read_keys(path, unlock))
    return found


def test_a_keyring_keeps_one_entry_for_a_store_and_not_the_key(path: Path, ring: InMemory) -> None:
    keys = keyfile.create_keys(path, Keyring())
    keyfile.change_key_file(path, Keyring(), Keyring())
    assert len(ring.entries) == 1
    assert keys.database.hex() not in ring.entries.values()
    assert keys.database not in path.read_bytes()
    keyfile.change_key_file(path, Keyring(), KEY_FILE)
    assert ring.entries == {}


def test_a_keyring_without_the_entry_or_with_another_is_one_clear_error(path: Path, ring: InMemory) -> None:
    keyfile.create_keys(path, Keyring())
    (name,) = ring.entries
    for entry, expected in (
        ("00" * 32, errors.StoreUnreadable),
        ("00" * 31, errors.KeyringUnavailable),
        ("secret?", errors.KeyringUnavailable),
    ):
        ring.entries[name] = entry
        with pytest.raises(expected):
            keyfile.read_keys(path, Keyring())
    del ring.entries[name]
    with pytest.raises(errors.KeyringUnavailable, match="has no key"):
        keyfile.read_keys(path, Keyring())


def test_a_machine_without_a_keyring_says_so_and_makes_no_store(path: Path) -> None:
    with using(NOWHERE), pytest.raises(errors.KeyringUnavailable, match="NoKeyringError"):
        keyfile.create_keys(path, Keyring())
    assert not path.exists()


def test_a_keyring_that_keeps_nothing_is_found_out_before_the_key_depends_on_it(path: Path) -> None:
    with using(NOTHING), pytest.raises(errors.KeyringUnavailable):
        keyfile.create_keys(path, Keyring())
    assert not path.exists()


def test_without_the_package_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(errors.KeyringUnavailable) as refused:
        keyfile.create_keys(path, Keyring())
    assert "pip install" in refused.value.diagnostics()


def test_what_a_keyring_raises_is_not_passed_on(ring: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: str) -> None:
        raise ZeroDivisionError("the secret is 1234")

    monkeypatch.setattr(ring, "get_password", tell)
    with pytest.raises(errors.KeyringUnavailable) as refused:
        os_keyring.find("an entry")
    assert "1234" not in refused.value.diagnostics()
    assert refused.value.__suppress_context__

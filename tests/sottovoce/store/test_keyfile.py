"""The key file: what it holds, how it is refused, and that a kill leaves no half of one."""

import os
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.store import keyfile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db.key"


@pytest.mark.parametrize("passphrase", [None, "correct horse", "пароль 🔑"])
def test_the_key_that_was_made_is_read_again(path: Path, passphrase: str | None) -> None:
    key = keyfile.create_key(path, passphrase)
    assert len(key) == keyfile.KEY_LENGTH
    assert keyfile.read_key(path, passphrase) == key


def test_with_a_passphrase_the_key_is_not_in_the_file(path: Path) -> None:
    key = keyfile.create_key(path, "correct horse")
    assert key not in path.read_bytes()
    bare = path.with_name("bare")
    assert keyfile.create_key(bare, None) in bare.read_bytes()


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_file_cut_at_any_length_or_with_a_tail_is_refused(path: Path, passphrase: str | None) -> None:
    keyfile.create_key(path, passphrase)
    whole = path.read_bytes()
    for content in [whole[:length] for length in range(len(whole))] + [whole + b"\x00"]:
        path.write_bytes(content)
        with pytest.raises(errors.StoreUnreadable):
            keyfile.read_key(path, passphrase)


def test_an_altered_wrapped_key_is_refused(path: Path) -> None:
    keyfile.create_key(path, "correct horse")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(errors.WrongPassphrase):
        keyfile.read_key(path, "correct horse")


def test_a_file_that_asks_for_all_the_memory_there_is_is_refused(path: Path) -> None:
    keyfile.create_key(path, "correct horse")
    whole = path.read_bytes()
    at = len(keyfile.MAGIC) + 1 + 16 + 4
    path.write_bytes(whole[:at] + (2**40).to_bytes(8, "big") + whole[at + 8 :])
    with pytest.raises(errors.StoreUnreadable, match="damaged"):
        keyfile.read_key(path, "correct horse")


def test_a_passphrase_for_a_store_without_one_is_refused(path: Path) -> None:
    keyfile.create_key(path, None)
    with pytest.raises(errors.WrongPassphrase, match="no passphrase"):
        keyfile.read_key(path, "correct horse")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_bare_key_that_others_may_read_is_refused(path: Path) -> None:
    keyfile.create_key(path, None)
    path.chmod(0o644)
    with pytest.raises(errors.StoreUnreadable, match="others may read") as refused:
        keyfile.read_key(path, None)
    assert "chmod 600" in refused.value.diagnostics()


def test_what_a_kill_left_half_written_is_replaced(path: Path) -> None:
    path.with_name("store.db.key.new").write_bytes(b"half")
    key = keyfile.create_key(path, None)
    assert keyfile.read_key(path, None) == key
    assert not path.with_name("store.db.key.new").exists()

"""Chains: one HMAC a step, and a walk that keeps a bounded number of positions."""

import hmac

from sottovoce.crypto.chain_key import MAX_SKIPPED, ReceivingChain, SendingChain, skipped_message_key


def test_both_kinds_of_chain_take_the_step_in_the_spec() -> None:
    for chain in (SendingChain(b"k" * 32, 4), ReceivingChain(b"k" * 32, 4)):
        assert chain.message_key() == hmac.digest(b"k" * 32, b"\x01", "sha256")
        assert chain.after().key == hmac.digest(b"k" * 32, b"\x02", "sha256")
        assert chain.after().number == 5
        key, after = chain.step()
        assert (key, after.key, after.number) == (chain.message_key(), chain.after().key, 5)
        assert (chain.key, chain.number) == (b"k" * 32, 4)


def test_the_keys_of_a_chain_never_meet_those_of_its_messages() -> None:
    chain, keys = SendingChain(b"k" * 32, 0), set()
    for _ in range(100):
        keys |= {chain.key, chain.message_key()}
        chain = chain.after()
    assert len(keys) == 200


def test_a_walk_ends_at_the_number_and_keeps_what_it_passed_in_order() -> None:
    chain = ReceivingChain(b"k" * 32, 3)
    end, passed = chain.walk(6)
    assert (end.number, end.key) == (6, chain.after().after().after().key)
    assert list(passed) == [(3, chain.key), (4, chain.after().key), (5, chain.after().after().key)]


def test_the_message_key_of_a_place_that_was_passed_is_that_of_the_chain() -> None:
    assert skipped_message_key(b"k" * 32) == ReceivingChain(b"k" * 32, 4).message_key()


def test_a_walk_to_where_one_stands_passes_nothing() -> None:
    chain = ReceivingChain(b"k" * 32, 3)
    end, passed = chain.walk(3)
    assert end is chain
    assert not passed


def test_a_long_walk_keeps_the_newest_positions_only() -> None:
    _, passed = ReceivingChain(b"k" * 32, 0).walk(MAX_SKIPPED + 100)
    assert [number for number, _ in passed] == list(range(100, MAX_SKIPPED + 100))


def test_a_walk_keeps_two_thousand() -> None:
    assert MAX_SKIPPED == 2_000

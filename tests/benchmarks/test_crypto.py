"""`scripts/bench crypto` measures real work of ours, beside the peers that are installed, and says what it could not.

A small setting. What the figures are is no matter here.
"""

import json
from pathlib import Path

import pytest

from benchmarks import crypto, crypto_ours, crypto_peers, crypto_report
from benchmarks.__main__ import main
from benchmarks.crypto_ours import OURS
from benchmarks.crypto_work import Contestant, Counts, Figures, Work, WrongResult
from sottovoce.crypto.ratchet import Decrypted
from tests.benchmarks.test_crypto_work import COUNTS

#: More than the tags that are looked ahead for.
MANY = Counts(messages=2, turns=2, setups=1, group=2, reverse=100, packs=1, attachment_mib=1)


class Failing:
    """A peer that fails."""

    name = "failing"

    def __init__(self) -> None:
        self.calls = 0
        self.works = {"set-up": self.fail, "group": self.speak}

    def fail(self, _: Counts) -> Figures:
        self.calls += 1
        raise OSError("no luck")

    def speak(self, _: Counts) -> Figures:
        return {"group_encrypt_us": 5.0}


def test_every_figure_is_measured_beside_its_goal_though_a_peer_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crypto_peers, "PEERS", {"nobody": "nobody"})
    monkeypatch.setattr(crypto, "_QUICK_ROUNDS", 1)
    file = tmp_path / "figures.json"
    assert crypto.main(["--quick", "--json", str(file)], COUNTS) == 0
    figures = json.loads(file.read_text())
    assert figures.keys() == {"ours", "peers"}
    assert tuple(figures["ours"]) == crypto_report.KEYS
    assert all(figures["ours"][key] > 0 for work in OURS.works.values() for key in work(COUNTS))
    assert figures["peers"] == {}
    table = capsys.readouterr().out
    assert all(f"\n{key} " in table for key in crypto_report.KEYS)
    assert "\nx25519 " in table
    assert "nobody: not measured, it is not installed here" in table
    assert "FAILED" not in table


def test_the_bench_s_command_leads_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["crypto", "--help"])
    assert end.value.code == 0
    assert "scripts/bench crypto" in capsys.readouterr().out


def test_a_peer_that_fails_is_named_once_and_keeps_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = Failing()
    installed: tuple[list[Contestant], list[str]] = ([peer], [])
    monkeypatch.setattr(crypto_peers, "installed", lambda: installed)
    monkeypatch.setattr(crypto, "_QUICK_ROUNDS", 2)
    assert crypto.main(["--quick", "--json", "-"], COUNTS) == 1
    out, table = capsys.readouterr()
    assert json.loads(out)["peers"] == {"failing": {"group_encrypt_us": 5.0}}
    assert table.count("FAILED: failing: set-up: OSError: no luck") == 1
    assert peer.calls == 1


def test_everybody_does_a_piece_of_work_before_anybody_does_the_next() -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name
            self.works = {work: self.note(work) for work in ("one", "two")}

        def note(self, work: str) -> Work:
            def measure(_: Counts) -> Figures:
                order.append(work + self.name)
                return {}

            return measure

    crypto.Run([Named("a"), Named("b")], COUNTS).round()
    assert order == ["onea", "oneb", "twoa", "twob"]


def test_ours_opens_everything_in_reverse_with_one_search() -> None:
    assert OURS.works["reverse"](MANY).keys() == {"reverse_us"}


def test_a_table_of_tags_that_is_not_kept_up_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_skipped_alone(tags: crypto_ours._Tags, opened: Decrypted) -> None:
        tags._skipped.update({(key.chain, key.number): key for key in opened.skipped})

    monkeypatch.setattr(crypto_ours._Tags, "keep", keep_skipped_alone)
    with pytest.raises(WrongResult, match="searches"):
        OURS.works["reverse"](MANY)


def test_a_sealed_first_message_that_comes_out_changed_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    original = crypto_ours._seal_first

    def seal_another(alice: object, peer: object, handshake: object, message: bytes) -> bytes:
        return original(alice, peer, handshake, message + b"\0")  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(crypto_ours, "_seal_first", seal_another)
    with pytest.raises(WrongResult, match="changed"):
        OURS.works["seal"](MANY)


@pytest.mark.parametrize("file", crypto_peers.PEERS.values())
def test_a_peer_that_is_installed_does_the_same_work(file: str) -> None:
    peer = pytest.importorskip(f"benchmarks.crypto_peers.{file}").PEER
    figures = {key: value for work in peer.works.values() for key, value in work(MANY).items()}
    assert {"setup_us", "encrypt_us", "decrypt_us", "pingpong_us"} <= figures.keys()
    assert figures.keys() <= {*crypto_report.KEYS, "reverse_lost"}
    assert all(value > 0 for value in figures.values())

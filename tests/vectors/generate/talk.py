"""Writes down the steps of a session for a vector, and plays them by the second implementation on the way.

So a step holds what is drawn in it, and nothing that is not. What comes of the steps is not written here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.second import keys, message, ml_kem, padding, pq, ratchet, stored
from tests.second.agreement import SessionKeys
from tests.second.message import Announced
from tests.second.notation import hmac
from tests.second.ratchet import Drawn, Sending, Session, StepDue
from tests.second.refusal import RefusedError
from tests.vectors.form import Entry, Value

from .cast import NOW, flipped, stream

#: What both sides of every session of these vectors begin with.
SESSION_FIELDS: Final[dict[str, Value]] = {
    name: stream(f"session, {name}")
    for name in ("sessionId", "rootKey", "headerKeyA", "tagKeyA", "headerKeyB", "tagKeyB", "signedPrekeySecret")
} | {"began": NOW}
_SPK: Final = stream("session, signedPrekeySecret")
_KEYS: Final = SessionKeys(
    *(stream(f"session, {name}") for name in ("sessionId", "rootKey", "headerKeyA", "tagKeyA", "headerKeyB", "tagKeyB"))
)


class Talk:
    """A session between A and B. `now` is moved by hand."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.now = NOW
        self.steps: list[Entry] = []
        self._gave: list[bytes] = []
        self.sides: dict[str, Session] = {
            "A": ratchet.initiator(_KEYS, keys.exchange_public(_SPK), NOW),
            "B": ratchet.responder(_KEYS, _SPK),
        }

    def random(self, what: str, length: int = 32) -> bytes:
        """What is drawn in the step that comes next."""
        return stream(f"{self._name}, step {len(self.steps)}, {what}", length)

    def _add(self, do: str, side: str, gave: bytes, **fields: bytes | int | None) -> int:
        self.steps.append({"do": do, "side": side, **fields})
        self._gave.append(gave)
        return len(self.steps) - 1

    def message(self, step: int) -> bytes:
        """What a step gave."""
        return self._gave[step]

    def send(self, side: str, body: bytes = b"") -> int:
        """A message in order; the number of its step."""
        before = self.sides[side]
        drawn = Drawn(self.random("r", 12), self.random("ratchet key"), self.random("KEM seed", 64))
        gave, after = _tried(before, lambda: ratchet.encrypt(before, body, self.now, drawn))
        secret = drawn.ratchet_secret if after.root_key != before.root_key else b""
        begins = isinstance(after.pq, pq.Offering) and not isinstance(before.pq, pq.Offering)
        seed = drawn.kem_seed if begins else b""
        self.sides[side] = after
        return self._add(
            "send", side, gave, at=self.now, body=body, nonce=drawn.nonce, ratchetSecret=secret, kemSeed=seed
        )

    def whisper(self, side: str, body: bytes = b"typing") -> int:
        """An ephemeral message."""
        before, nonce = self.sides[side], self.random("r", 12)
        gave, self.sides[side] = _tried(before, lambda: ratchet.encrypt_ephemeral(before, body, Drawn(nonce)))
        return self._add("sendEphemeral", side, gave, body=body, nonce=nonce)

    def deliver(self, step: int, *, flip: int | None = None) -> int:
        """What a step gave comes to the other side, perhaps with a bit changed."""
        side = "B" if self.steps[step]["side"] == "A" else "A"
        before, coins = self.sides[side], self.random("KEM coins")
        came = self._gave[step] if flip is None else flipped(self._gave[step], flip)
        gave, after = _read(before, came, self.now, coins)
        drawn: dict[str, bytes] = {"kemCoins": b"", "kemSecret": b"", "kemCiphertext": b""}
        if isinstance(after.pq, pq.Answering) and isinstance(before.pq, pq.Waiting):
            offered = self.sides["A"].pq
            assert isinstance(offered, pq.Offering)
            secret, ciphertext = ml_kem.encapsulate(offered.key, coins)
            drawn = {"kemCoins": coins, "kemSecret": secret, "kemCiphertext": ciphertext}
        self.sides[side] = after
        return self._add("deliver", side, gave, at=self.now, step=step, flipped=flip, **drawn)

    def receive(self, side: str, came: bytes) -> int:
        """Bytes that no step gave."""
        gave, self.sides[side] = _read(self.sides[side], came, self.now, b"")
        return self._add("receive", side, gave, at=self.now, message=came)

    def receive_as(self, side: str, came: bytes, announced: Announced) -> int:
        """The same, taken for what it may not be."""
        before, (chain, number, is_ephemeral) = self.sides[side], announced
        gave, self.sides[side] = _tried(before, lambda: ratchet.decrypt(before, came, announced, self.now))
        fields = {"chain": chain, "number": number, "ephemeral": int(is_ephemeral)}
        return self._add("receiveAs", side, gave, at=self.now, message=came, **fields)

    def restart(self, side: str) -> None:
        """A side goes on with what it stored."""
        before = self.sides[side]
        self.sides[side] = replace(stored.unpack(stored.pack(before)), kept=before.kept)
        self._add("restart", side, b"")

    def restore(self, side: str, session: Session) -> None:
        """A side goes on with another state, and without kept keys."""
        state = stored.pack(session)
        self.sides[side] = stored.unpack(state)
        self._add("restore", side, b"", state=state)

    def exchange(self, side: str, body: bytes = b"") -> None:
        """A message that arrives."""
        self.deliver(self.send(side, body))

    def forged(
        self,
        side: str,
        *,
        content: bytes = b"\x00forged",
        ss: bytes | None = None,
        begins: bool = False,
        **header: int | bytes,
    ) -> bytes:
        """What `side` would send next, with other fields in its header, another content, another secret mixed in;
        its state stays. With `begins`, on a chain that answers the same key as the one before."""
        session = self.sides[side]
        if begins:
            assert isinstance(session.sending, Sending)
            assert session.receiving
            session = replace(session, sending=StepDue(session.receiving.ratchet_key, session.sending.n, None))
        if ss is not None:
            session = replace(session, pq=pq.Due(ss) if ss else pq.Resting(self.now))
        if isinstance(session.sending, StepDue):
            session = ratchet.sending_half(session, session.sending, self.now, self.random("forged ratchet key"))
        chain = session.sending
        assert isinstance(chain, Sending)
        return self._written(session, chain, header, content)

    def _written(self, session: Session, chain: Sending, header: dict[str, int | bytes], content: bytes) -> bytes:
        line = chain.ephemeral
        usual: dict[str, int | bytes] = {"key": line.own_public, "previous": line.previous, "n": chain.n}
        fields = usual | {"epoch": line.epoch} | header
        values = [fields[name] for name in ("key", "previous", "n", "epoch")]
        written = b"".join(value if isinstance(value, bytes) else value.to_bytes(4, "big") for value in values)
        announced = fields.get("tag", fields["n"])
        assert isinstance(announced, int)
        start, nonce = message.tag(line.route, announced), self.random("forged r", 12)
        key = hmac(chain.key, b"\x01")
        return message.seal(line.route, key, start, nonce, written, session.session_id, padding.pad(content))


def _tried(before: Session, act: Callable[[], tuple[bytes, Session]]) -> tuple[bytes, Session]:
    """What an act gives, and nothing and the session before where it is refused."""
    try:
        return act()
    except RefusedError:
        return b"", before


def _read(before: Session, came: bytes, now: int, coins: bytes) -> tuple[bytes, Session]:
    drawn = Drawn(kem_coins=coins)
    return _tried(before, lambda: ratchet.decrypt(before, came, ratchet.find(before, came), now, drawn))

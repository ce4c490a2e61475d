"""A keyserver that is away, slow or lies: what becomes of the questions that clients ask it. Each fault is a block.

It changes answers, never what is kept: afterwards the keyserver is as honest as it was.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code

from .keyserver import MemoryKeyserver

Answer: TypeAlias = tuple[int, bytes]
_Ask: TypeAlias = Callable[[bytes], Answer]

#: What is no answer: more of it than most parsers like.
_BABBLE: Final = b'{"root_key": [' * 1000


@dataclass(frozen=True, slots=True, eq=False)
class _Fault:
    """What is wrong with the keyserver for `to`, or for everybody: whether it is away, how many seconds it takes, and
    what it answers to a path and a body."""

    to: str | None
    lie: Callable[[str, bytes, _Ask], Answer] = lambda _path, body, ask: ask(body)
    takes: float = 0
    is_away: bool = False


class KeyserverFaults:
    """The faults of a world's keyserver; each is a block (`with world.faults.keyserver.away():`) and ends with it.

    `to`: whom it treats so; None is everybody. `name` and `other` are the names of people it knows, else KeyError.
    """

    def __init__(self, keyserver: MemoryKeyserver) -> None:
        self._keyserver = keyserver
        self._faults: list[_Fault] = []

    def away(self, *, to: str | None = None) -> AbstractContextManager[None]:
        """It does not answer. Relay and messages go on."""
        return self._while(_Fault(to, is_away=True))

    def slow(self, seconds: float, *, to: str | None = None) -> AbstractContextManager[None]:
        """It does at once what it is asked, and answers so much later; after 30 s clients have given it up."""
        return self._while(_Fault(to, takes=seconds))

    def withhold(self, name: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """It says that it does not know somebody."""

        def lie(path: str, body: bytes, ask: _Ask) -> Answer:
            if self._keyserver.asked_for(path, body) != name:
                return ask(body)
            code = Code.UNKNOWN_NAME if path == wire.PATH_FIND_NAME else Code.UNKNOWN_ACCOUNT
            return 404, wire.encode(wire.Problem(int(code), "nobody here"))

        return self._while(_Fault(to, lie), name)

    def withhold_prekeys(self, name: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """It knows somebody, and has nothing to encrypt a first message with."""
        return self._changing(name, lambda found: msgspec.structs.replace(found, bundles=[]), to)

    def withhold_news(self, name: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """It goes on giving out the device list and prekeys that somebody has now, whatever they publish."""
        return self._giving_out(name, -1, to)

    def roll_back(self, name: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """It gives out the device list and prekeys that somebody registered with."""
        return self._giving_out(name, 0, to)

    def swap(self, name: str, other: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """Whoever asks for one person is given the other's account."""

        def lie(path: str, body: bytes, ask: _Ask) -> Answer:
            if self._keyserver.asked_for(path, body) != name:
                return ask(body)
            if path == wire.PATH_FIND_NAME:
                return ask(wire.encode(wire.FindName(other)))
            return ask(wire.encode(wire.FetchBundles(self._keyserver.account_of(other), None)))

        return self._while(_Fault(to, lie), name, other)

    def swap_devices(self, name: str, other: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """The account is right, and its device list is the other's."""

        def change(found: wire.Bundles) -> wire.Bundles:
            return msgspec.structs.replace(found, device_list=self._keyserver.given(other)[-1].device_list)

        return self._changing(name, change, to, other)

    def swap_prekeys(self, name: str, other: str, *, to: str | None = None) -> AbstractContextManager[None]:
        """The account and its device list are right, and the prekeys are the other's."""

        def change(found: wire.Bundles) -> wire.Bundles:
            return msgspec.structs.replace(found, bundles=self._keyserver.given(other)[-1].bundles)

        return self._changing(name, change, to, other)

    def no_one_time_prekeys(self, *, to: str | None = None) -> AbstractContextManager[None]:
        """It gives out prekeys without a one-time prekey, as one does whose stock is empty."""
        return self._changing(None, lambda found: _with_one_time(found.bundles, {}, found), to)

    def repeat_one_time_prekeys(self, *, to: str | None = None) -> AbstractContextManager[None]:
        """It gives everybody the one-time prekey of a device that it gave the first, as one does that was put back from
        a copy."""
        given: dict[bytes, wire.OneTimePrekey | None] = {}

        def change(found: wire.Bundles) -> wire.Bundles:
            for bundle in found.bundles:
                given.setdefault(bundle.device_id, bundle.one_time_prekey)
            return _with_one_time(found.bundles, given, found)

        return self._changing(None, change, to)

    def babble(self, *, to: str | None = None) -> AbstractContextManager[None]:
        """It answers everything with what is no answer."""
        return self._while(_Fault(to, lambda _path, _body, _ask: (200, _BABBLE)))

    # --- Asked by the network ------------------------------------------------------------------------------------

    def answer(self, who: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What somebody is answered."""

        ask: _Ask = lambda body: self._keyserver.answer(method, path, body, headers)  # noqa: E731 - the honest one
        for fault in self._for(who):
            ask = _lying(fault, path, ask)
        return ask(body)

    def is_away(self, who: str) -> bool:
        """Whether somebody reaches no keyserver."""
        return any(fault.is_away for fault in self._for(who))

    def takes(self, who: str) -> float:
        """Seconds that an answer takes."""
        return sum(fault.takes for fault in self._for(who))

    def _for(self, who: str) -> list[_Fault]:
        return [fault for fault in self._faults if fault.to in (None, who)]

    # --- How ----------------------------------------------------------------------------------------------------

    def _giving_out(self, name: str, which: int, to: str | None) -> AbstractContextManager[None]:
        """One of what the keyserver was given of somebody; one-time prekeys are as ever."""
        given = self._keyserver.given(name)[which]

        def change(found: wire.Bundles) -> wire.Bundles:
            fresh = {bundle.device_id: bundle.one_time_prekey for bundle in found.bundles}
            asked_for = [bundle for bundle in given.bundles if bundle.device_id in fresh]
            return _with_one_time(asked_for, fresh, given)

        return self._changing(name, change, to)

    def _changing(
        self, name: str | None, change: Callable[[wire.Bundles], wire.Bundles], to: str | None, *others: str
    ) -> AbstractContextManager[None]:
        """Another answer to who asks for somebody's devices and prekeys, or with None for anybody's."""

        def lie(path: str, body: bytes, ask: _Ask) -> Answer:
            status, answer = ask(body)
            if status != 200 or path != wire.PATH_BUNDLES or name not in (None, self._keyserver.asked_for(path, body)):
                return status, answer
            return status, wire.encode(change(wire.decode(wire.Bundles, answer)))

        return self._while(_Fault(to, lie), *([] if name is None else [name]), *others)

    @contextmanager
    def _while(self, fault: _Fault, *people: str) -> Iterator[None]:
        for name in people:
            self._keyserver.account_of(name)
        self._faults.append(fault)
        try:
            yield
        finally:
            self._faults.remove(fault)


def _lying(fault: _Fault, path: str, ask: _Ask) -> _Ask:
    return lambda body: fault.lie(path, body, ask)


def _with_one_time(
    bundles: list[wire.Bundle], one_time: Mapping[bytes, wire.OneTimePrekey | None], found: wire.Bundles
) -> wire.Bundles:
    """An answer with these bundles, and for each device the one-time prekey that there is."""
    replaced = [msgspec.structs.replace(each, one_time_prekey=one_time.get(each.device_id)) for each in bundles]
    return msgspec.structs.replace(found, bundles=replaced)

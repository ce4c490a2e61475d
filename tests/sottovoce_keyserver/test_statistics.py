"""The statistics count what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sottovoce_hosting.inspection import inspecting
from sottovoce_keyserver.app import DATABASE
from sottovoce_keyserver.statistics import statistics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sottovoce_keyserver.conftest import Person, ServedKeyserver


async def test_accounts_names_devices_and_prekeys_are_counted(
    keyserver: ServedKeyserver, alice: Person, bob: Person, tmp_path: Path
) -> None:
    await keyserver.register(alice, "alice")
    bob.devices.append(bob.device(1))
    await keyserver.register(bob)
    with inspecting(tmp_path / DATABASE) as connection:
        assert statistics(connection) == {"accounts": 2, "usernames": 1, "devices": 3, "one_time_prekeys": 6}

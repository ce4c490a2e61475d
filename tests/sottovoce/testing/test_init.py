"""What the kit offers, and that programs which do not ask for it do not get it."""

import subprocess
import sys

from sottovoce import testing

CHECK = """
import sys, sottovoce
assert "sottovoce.testing" not in sys.modules
import sottovoce.testing
assert not {"pytest_trio", "sottovoce_hosting", "sottovoce_relay", "sottovoce_keyserver"} & set(sys.modules)
"""


def test_the_kit_offers_this_and_nothing_else() -> None:
    assert testing.__all__ == [
        "ORIGIN",
        "AioWorld",
        "Asked",
        "Clock",
        "Delivered",
        "Faults",
        "KeyserverFaults",
        "MemoryNetwork",
        "Passed",
        "SyncWorld",
        "Wire",
        "World",
        "aio_world",
        "sync_world",
        "world",
    ]


def test_the_library_does_without_the_kit_and_the_kit_without_servers() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)

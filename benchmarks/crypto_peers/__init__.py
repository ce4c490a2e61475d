"""Other implementations at the work of `crypto_work`, one file each. None of them is imported where it is missing.

Each is measured as a program would call it, from the text to what it can send and back, and at its best: the fewest
prekeys, no store. None encrypts its headers, pads, or agrees on post-quantum secrets.
"""

from importlib import import_module
from typing import Final

from ..crypto_work import Contestant

#: The package's name on the index, and the file here.
PEERS: Final = {"vodozemac": "vodozemac", "python-olm": "olm", "doubleratchet": "doubleratchet"}


def installed() -> tuple[list[Contestant], list[str]]:
    """The peers that can be imported, and a sentence for each that cannot."""
    found: list[Contestant] = []
    missing: list[str] = []
    for name, file in PEERS.items():
        try:
            found.append(import_module(f"{__name__}.{file}").PEER)
        except ImportError as error:
            missing.append(f"{name}: not measured, it is not installed here or has no wheel for this Python ({error})")
    return found, missing

"""How long the fault tests take: short in the suite, as long as wanted by scripts/chaos. Nothing else is read here."""

import os
from typing import Final

#: Times that a relay is killed under load.
ROUNDS: Final = int(os.environ.get("SOTTOVOCE_CHAOS_ROUNDS", "3"))
#: What everything random in a fault test starts from; a failing test prints it.
SEED: Final = int(os.environ.get("SOTTOVOCE_CHAOS_SEED", "1"))
#: Whether to do everything at full size: 10,000 connections, 100,000 envelopes, measured answer times.
FULL: Final = os.environ.get("SOTTOVOCE_CHAOS_FULL", "") == "1"

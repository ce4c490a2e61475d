"""The fault tests at full length: `scripts/chaos [--rounds N] [--seed N] [pytest's arguments]`.

The same tests as the suite's, tests/faults and the store's power cuts, with the numbers of tests/faults/scale.py.
Whatever is random starts from the seed, which is printed; the moments at which processes run are the system's.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_EVERYTHING: Final = ("tests/sottovoce/store/test_power.py", "tests/faults")
#: A test of many rounds may take minutes without hanging.
_OPTIONS: Final = ("-v", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0")


def plan(arguments: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """The variables to set, and pytest's arguments."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="The fault tests, at full length.")
    parser.add_argument("--rounds", type=int, default=50, help="how often a relay is killed under load (50)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="what the random numbers start from")
    asked, rest = parser.parse_known_args(arguments)
    if asked.rounds < 1:
        parser.error("at least one round")
    chosen = {"ROUNDS": str(asked.rounds), "SEED": str(asked.seed), "FULL": "1"}
    where = rest if any(Path(argument.partition("::")[0]).exists() for argument in rest) else [*_EVERYTHING, *rest]
    return {f"SOTTOVOCE_CHAOS_{name}": value for name, value in chosen.items()}, [*_OPTIONS, *where]


def main() -> None:
    """The command; pytest takes its place."""
    os.chdir(ROOT)
    variables, arguments = plan(sys.argv[1:])
    print(f"seed {variables['SOTTOVOCE_CHAOS_SEED']}", flush=True)
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *arguments], {**os.environ, **variables})  # noqa: S606


if __name__ == "__main__":
    main()

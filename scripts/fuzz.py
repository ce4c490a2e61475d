"""The tests with random input, on fresh input: `scripts/fuzz [--times N] [--seed N] [pytest's arguments]`.

The same tests as the suite's, the state machines among them: sessions and group chains under any schedule, parsers, the
relay's model. The suite gives them a few examples, the same ones each time. What a failure printed comes again with the
seed, which is printed first, and as many times.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
#: Hypothesis marks its tests itself. One test may take minutes without hanging.
_OPTIONS: Final = (
    *("-m", "hypothesis", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0"),
    *("-n", "auto", "--dist", "worksteal", "--durations", "10"),
)


def plan(arguments: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """The variables to set, and pytest's arguments."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="The tests with random input, on fresh input.")
    parser.add_argument("--times", type=int, default=10, help="how many times the suite's examples (10)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="what the random input starts from")
    asked, rest = parser.parse_known_args(arguments)
    if asked.times < 1:
        parser.error("at least once")
    where = rest if any(Path(argument.partition("::")[0]).exists() for argument in rest) else ["tests", *rest]
    return {"SOTTOVOCE_FUZZ_TIMES": str(asked.times)}, [*_OPTIONS, f"--hypothesis-seed={asked.seed}", *where]


def main() -> None:
    """The command; pytest takes its place."""
    os.chdir(ROOT)
    variables, arguments = plan(sys.argv[1:])
    print(next(each for each in arguments if each.startswith("--hypothesis-seed")).lstrip("-"), flush=True)
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *arguments], {**os.environ, **variables})  # noqa: S606


if __name__ == "__main__":
    main()

"""Plants faults in copies of the tree and checks that the named tests fail: `scripts/sabotage [NAME…]`.

The faults stand in tests/sabotage/*.toml. The tree itself is never touched. A fault counts as caught only if a test
fails; tests that cannot be collected, set up or found catch nothing.
"""

import argparse
import enum
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec
import trio

from .processes import end_session, run_to_the_end

ROOT: Final = Path(__file__).parents[1]
_AT_ONCE: Final = 2
_PATIENCE: Final = 180.0
#: Where the packages' sources lie: on PYTHONPATH they go before the editable installation, in child processes too.
_SOURCES: Final = ("sdk", "relay", "keyserver")
_TESTS_FAILED: Final = 1  # pytest's exit code


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change that must not go unnoticed. `find` occurs exactly once in `file`; `tests` are pytest's arguments."""

    name: str
    sentence: str
    file: str
    find: str
    replace: str
    tests: list[str]


class _FaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fault: list[Fault]


class Verdict(enum.Enum):
    """What became of a fault. Only CAUGHT is good."""

    CAUGHT = "caught"
    NOT_CAUGHT = "NOT CAUGHT: the tests stay green"
    STALE = "STALE: the text to find must occur exactly once"
    NOT_TESTED = "NOT TESTED: no test ran and failed"
    HUNG = "HUNG: the tests did not end"


@dataclass(frozen=True)
class Result:
    """A verdict and, where it is NOT_TESTED, what pytest said."""

    verdict: Verdict
    output: str = ""


def load_faults(folder: Path) -> list[Fault]:
    """All faults of the TOML files in `folder`. Raises ValueError if a name stands twice or a file cannot be read."""
    faults = [
        fault
        for file in sorted(folder.glob("*.toml"))
        for fault in msgspec.toml.decode(file.read_bytes(), type=_FaultFile).fault
    ]
    names = [fault.name for fault in faults]
    if len(set(names)) != len(names):
        raise ValueError(f"two faults have one name: {sorted({name for name in names if names.count(name) > 1})}")
    return faults


def tenth_of(faults: list[Fault], commit: str) -> list[Fault]:
    """About a tenth, another one for each commit."""
    return [fault for fault in faults if crc32(f"{commit} {fault.name}".encode()) % 10 == 0]


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def copy_tree(source: Path, target: Path) -> None:
    """Copy what git knows or does not ignore, as it lies in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=source,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def plant(tree: Path, fault: Fault) -> bool:
    """Change the file. False if the text to find does not occur exactly once."""
    path = tree / fault.file
    text = path.read_text("utf-8") if path.is_file() else ""
    if text.count(fault.find) != 1:
        return False
    path.write_text(text.replace(fault.find, fault.replace), "utf-8")
    return True


async def try_fault(root: Path, fault: Fault, *, patience: float = _PATIENCE) -> Result:
    """Plant the fault in a copy of `root` and run its tests there. Cancellation ends them and removes the copy."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-sabotage-") as folder:
        tree = Path(folder)
        copy_tree(root, tree)
        if not plant(tree, fault):
            return Result(Verdict.STALE)
        with trio.move_on_after(patience):
            done = await _run_tests(tree, fault.tests)
            return _judge(done.returncode, done.stdout.decode(errors="replace"))
        return Result(Verdict.HUNG)


async def _run_tests(tree: Path, tests: list[str]) -> subprocess.CompletedProcess[bytes]:
    options = ["-p", "no:cacheprovider", "-x", "-q", "-rfE", "--color=no"]
    return await trio.run_process(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(tree / source) for source in _SOURCES)},
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        deliver_cancel=end_session,
    )


def _judge(code: int, output: str) -> Result:
    if code == 0:
        return Result(Verdict.NOT_CAUGHT)
    # With -x an error in collection or set-up gives the same exit code as a failing test; the summary tells them apart.
    if code == _TESTS_FAILED and any(line.startswith("FAILED ") for line in output.splitlines()):
        return Result(Verdict.CAUGHT)
    return Result(Verdict.NOT_TESTED, output)


async def try_all(root: Path, faults: list[Fault]) -> int:
    """Try the faults, two at a time, with a line for each. 0 if all are caught, else 1."""
    limiter = trio.CapacityLimiter(_AT_ONCE)
    bad = 0

    async def one(fault: Fault) -> None:
        nonlocal bad
        async with limiter:
            began = trio.current_time()
            result = await try_fault(root, fault)
        bad += result.verdict is not Verdict.CAUGHT
        _show(fault, result, trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for fault in faults:
            nursery.start_soon(one, fault)
    print(f"{len(faults)} faults, {len(faults) - bad} caught", flush=True)
    return int(bad > 0)


def _show(fault: Fault, result: Result, seconds: float) -> None:
    print(f"{result.verdict.value}: {fault.name} ({seconds:.1f} s)", flush=True)
    if result.verdict is not Verdict.CAUGHT:
        print(f"    {fault.sentence}\n    {fault.file}; tests: {' '.join(fault.tests)}")
        print("".join(f"    | {line}\n" for line in result.output.splitlines()[-30:]), end="", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/sabotage", description="Plant faults; the tests must catch each.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="print the names of the faults")
    parser.add_argument("--tenth", action="store_true", help="only a tenth of them, another one for each commit")
    asked = parser.parse_args()
    faults = load_faults(ROOT / "tests" / "sabotage")
    if unknown := set(asked.names) - {fault.name for fault in faults}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if asked.list:
        print("\n".join(fault.name for fault in faults))
        return 0
    if asked.tenth:
        faults = tenth_of(faults, _commit())
    chosen = [fault for fault in faults if not asked.names or fault.name in asked.names]
    return run_to_the_end(partial(try_all, ROOT, chosen))


if __name__ == "__main__":
    sys.exit(main())

"""Writes protocol-spec/vectors anew: `scripts/vectors`; --check only says which files differ, or how many agree."""

import argparse
import sys

from tests.vectors.form import FOLDER, files, vectors

from .table import generated, outdated


def check() -> str | int:
    """What the command ends with: which files differ, or 0 after a line that says how much agrees."""
    if names := outdated(FOLDER):
        return f"not what scripts/vectors writes: {', '.join(names)}"
    sys.stdout.write(f"{sum(1 for _ in vectors())} vectors in {len(files())} files are what scripts/vectors writes\n")
    return 0


def main() -> None:
    """The command. Exit code 1 if --check finds a difference."""
    parser = argparse.ArgumentParser(prog="scripts/vectors", description="Generates the protocol's test vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    if parser.parse_args().check:
        sys.exit(check())
    FOLDER.mkdir(exist_ok=True)
    written = generated()
    for path in FOLDER.glob("*.json"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()

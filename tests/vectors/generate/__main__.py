"""Writes protocol-spec/vectors anew: `scripts/vectors`; --check only says which files differ."""

import argparse
import sys

from tests.vectors.form import FOLDER

from .table import generated, outdated


def main() -> None:
    """The command. Exit code 1 if --check finds a difference."""
    parser = argparse.ArgumentParser(prog="scripts/vectors", description="Generates the protocol's test vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    if parser.parse_args().check:
        names = outdated(FOLDER)
        sys.exit(f"not what scripts/vectors writes: {', '.join(names)}" if names else 0)
    FOLDER.mkdir(exist_ok=True)
    written = generated()
    for path in FOLDER.glob("*.json"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()

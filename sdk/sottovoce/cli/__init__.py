"""The `sottovoce` command: a person's or a script's way to the SDK. Only this folder prints."""

import sys


def main() -> None:
    """Run the command; exits with the codes of `app.ExitCode`."""
    try:
        from .app import run
    except ModuleNotFoundError as missing:
        sys.exit(f"sottovoce: the command needs {missing.name}; in a clone, pip install '.[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    run()

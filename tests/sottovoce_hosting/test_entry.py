"""A server's command without its extra says what to install."""

import subprocess
import sys

import pytest

COMMANDS = {
    "sottovoce-relay": ("sottovoce_relay.cli", "relay"),
    "sottovoce-keyserver": ("sottovoce_keyserver.cli", "keyserver"),
    "sottovoce-server": ("sottovoce_server", "server"),
}
#: What the extras bring: as if none of it were installed.
PROGRAM = """
import sys
for name in ("cyclopts", "pydantic", "pydantic_settings", "sqlalchemy", "quart", "structlog", "prometheus_client"):
    sys.modules[name] = None
from {module} import main
main()
"""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_whose_extra_is_missing_says_so_in_one_line(command: str) -> None:
    module, extra = COMMANDS[command]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"{command}: ")
    assert done.stderr.endswith(f" is not installed: pip install '.[{extra}]' in the clone brings it\n")

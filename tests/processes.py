"""Which processes run, as the kernel lists them: tests ask it that a command has left none behind."""

from pathlib import Path


def processes_of(folder: Path) -> list[str]:
    """The command lines of running processes that name the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
    return [line for line in lines if str(folder) in line]

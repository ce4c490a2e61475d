"""How much memory a process holds, as the kernel counts it. test_hostile.py shows that a leak is seen."""

from pathlib import Path
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


def memory_of(pid: int) -> int:
    """Bytes of the process's own memory (anonymous pages) that are resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return KIB * int(line.split()[1])
    raise ValueError("the process has ended")

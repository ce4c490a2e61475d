"""Disks that a test may fill, refuse or take away: a small file system in a mount namespace that one process has alone.

Works for root, and for others where the system lets them have user namespaces. Nothing is left when the process ends.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.relay_clients import RelayProcess

_UNSHARE: Final = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")


def small_disk(folder: Path, mebibytes: int) -> tuple[str, ...]:
    """A command that runs another, for which `folder` is a disk of this size. Skips the test where that cannot be."""
    return _mounted(f"mount -t tmpfs -o size={mebibytes}m,mode=700 tmpfs", folder)


def read_only(folder: Path) -> tuple[str, ...]:
    """A command that runs another, for which `folder` cannot be written. Skips the test where that cannot be."""
    return _mounted('f() { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }; f', folder)


def _mounted(mount: str, folder: Path) -> tuple[str, ...]:
    wrapper = (*_UNSHARE, "sh", "-c", f'{mount} "$0" && exec "$@"', str(folder))
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("this system gives no mount namespaces")
    return wrapper


@dataclass(frozen=True)
class Disk:
    """The disk of a running relay, seen from outside. It stays readable when the relay has ended."""

    folder: Path

    def fill(self) -> None:
        """Leave not one byte."""
        with (self.folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
            for size in (2**20, 2**12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "filler").unlink()


@contextmanager
def disk_of(relay: RelayProcess, folder: Path) -> Iterator[Disk]:
    """The disk that `relay` alone has at `folder`."""
    handle = os.open(f"/proc/{relay.process.pid}/root{folder}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Disk(Path(f"/proc/self/fd/{handle}"))
    finally:
        os.close(handle)


@contextmanager
def refusing_writes(relay: RelayProcess) -> Iterator[None]:
    """While the block runs, no file that `relay` has open takes a byte: a disk that fails, and comes back."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        if relay.process.returncode is None:
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, unlimited)

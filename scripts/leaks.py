"""Looks for lines of plain text in bytes that should hold none: as they are, in JSON, in base64 and in hexadecimal.

Pure functions of bytes, and one that walks a folder. A line that is found is named by its number, never repeated.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A line is evidence if, without the spaces around it, it has this many bytes, and this many different ones: `}` and
#: `----------------` turn up in any file.
MIN_BYTES: Final = 16
MIN_DIFFERENT: Final = 8

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True)
class Trace:
    """One line that was found: its number in the text (from 1), in which form, and where."""

    line: int
    form: str
    place: str


def is_evidence(line: str) -> bool:
    """Whether finding the line somewhere shows that it came from the text."""
    stripped = line.strip().encode()
    return len(stripped) >= MIN_BYTES and len(set(stripped)) >= MIN_DIFFERENT


def forms(line: str) -> Iterator[tuple[str, bytes]]:
    """How the line may stand in a file: (name, bytes). Base64 in its three alignments, both alphabets."""
    raw = line.strip().encode()
    yield "as it is", raw
    yield "in JSON", json.dumps(line.strip())[1:-1].encode()
    yield "in hexadecimal", raw.hex().encode()
    yield "in hexadecimal", raw.hex().upper().encode()
    for shift in range(3):
        encoded = base64_within(raw, shift)
        yield "in base64", encoded
        yield "in base64", encoded.translate(_URL_SAFE)


def base64_within(raw: bytes, shift: int) -> bytes:
    """The base64 characters that `raw` alone decides when `shift` other bytes (mod 3) stand before it."""
    encoded = base64.b64encode(bytes(shift) + raw)
    return encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]


class Search:
    """Many lines at once: every form is filed under its first 16 bytes, and a text is walked once for all."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        """`lines`: (number, line); those that are no evidence are left out. `size`: how many remain."""
        self._filed: dict[bytes, list[tuple[bytes, int, str]]] = defaultdict(list)
        self._lines: set[str] = set()
        self.size = 0
        for number, line in lines:
            if is_evidence(line):
                self.size += 1
                self._lines.add(line)
                for form, pattern in set(forms(line)):
                    self._filed[pattern[:MIN_BYTES]].append((pattern, number, form))

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    def in_bytes(self, data: bytes, place: str) -> set[Trace]:
        """Every line that stands in `data`."""
        filed = self._filed
        hits = [at for at in range(len(data) - MIN_BYTES + 1) if data[at : at + MIN_BYTES] in filed]
        return {
            Trace(number, form, place)
            for at in hits
            for pattern, number, form in filed[data[at : at + MIN_BYTES]]
            if data.startswith(pattern, at)
        }

    def in_files(self, paths: Iterable[Path]) -> set[Trace]:
        """Every line that stands in one of the files, or in its name."""
        return {
            trace
            for path in paths
            for data in (path.read_bytes(), path.name.encode())
            for trace in self.in_bytes(data, path.name)
        }


def files_in(folder: Path) -> list[Path]:
    """All files below `folder`, journals and logs included."""
    return sorted(path for path in folder.rglob("*") if path.is_file())

"""The pages under docs/ as programs: what they print is run as it is printed, line by line.

A block of Python that begins with `# name.py` is a program; every other one defines what the reader's own program would
call, and a test calls it. What a page is about never stands here.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs"
#: This page is about writing tests, and has its own: tests/sottovoce/testing/test_docs.py.
TESTED_ELSEWHERE = "testing"


@dataclass(frozen=True)
class Block:
    """A fenced block: the number of its first line, its language, its text."""

    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Of a program, its file; else nothing."""
        found = re.match(r"# (\S+\.py)\n", self.text)
        return found[1] if found else ""


def pages() -> list[str]:
    """Every page that readers see, by its path without `.md`."""
    found = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.md"))
    return sorted(str(path) for path in found if path.parts[0] != "_build")


def text_of(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text("utf-8")


def blocks(page: str, language: str = "") -> list[Block]:
    """The page's blocks, all or of one language."""
    text = text_of(page)
    found = [
        Block(text[: match.start()].count("\n") + 2, match[1], match[2])
        for match in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    return [block for block in found if language in ("", block.language)]


def programs(page: str) -> dict[str, str]:
    """The page's programs, by the names of their files."""
    return {block.name: block.text for block in blocks(page, "python") if block.name}


def definitions(page: str) -> list[Block]:
    """The page's other blocks of Python."""
    return [block for block in blocks(page, "python") if not block.name]


@dataclass
class Page:
    """A page whose definitions are at work: `names` has them, `ran` the numbers of the lines that ran."""

    file: str
    names: dict[str, Any]
    lines: set[int] = field(default_factory=set)
    ran: set[int] = field(default_factory=set)

    def run(self, block: Block) -> None:
        """Run a block, under the numbers that its lines have on the page."""
        code = compile("\n" * (block.line - 1) + block.text, self.file, "exec")
        self.lines |= _lines(code)
        exec(code, self.names)  # noqa: S102 - the pages are ours

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        """For sys.settrace: note the lines of this page."""
        if frame.f_code.co_filename != self.file:
            return None
        if event in ("call", "line"):
            self.ran.add(frame.f_lineno)
        return self.trace


@contextmanager
def running(page: str) -> Iterator[Page]:
    """A page with its definitions, every line of which must have run when the block ends."""
    made = Page(f"docs/{page}.md", {"__name__": f"docs.{page}"})
    before = sys.gettrace()
    sys.settrace(made.trace)
    try:
        for block in definitions(page):
            made.run(block)
        yield made
    finally:
        sys.settrace(before)
    assert made.lines <= made.ran, f"lines of {made.file} that did not run: {sorted(made.lines - made.ran)}"


def _lines(code: CodeType) -> set[int]:
    """The numbers of the lines that can run, in a code object and all within it."""
    found = {line for _, _, line in code.co_lines() if line}
    return found.union(*(_lines(each) for each in code.co_consts if isinstance(each, CodeType)))

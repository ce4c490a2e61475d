"""Whether a page that says something untrue would be noticed; and that no block is overlooked."""

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import Block, running

PAGE = """# A page

```python
def sign(number: int) -> str:
    if number < 0:
        return "minus"
    return "plus"
```

```python
# alone.py
raise SystemExit("a program is not run with the definitions")
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(pages, "FOLDER", tmp_path)


@pytest.mark.usefixtures("page")
def test_a_line_that_does_not_run_is_told_by_its_number() -> None:
    with pytest.raises(AssertionError, match=r"docs/page\.md that did not run: \[6\]"), running("page") as half:
        assert half.names["sign"](1) == "plus"
    with running("page") as whole:
        assert [whole.names["sign"](number) for number in (-1, 1)] == ["minus", "plus"]


@pytest.mark.usefixtures("page")
def test_a_program_and_a_definition_are_told_apart() -> None:
    assert [block.line for block in pages.definitions("page")] == [4]
    assert list(pages.programs("page")) == ["alone.py"]


def test_every_block_is_of_a_kind_that_is_run_or_read_by_sphinx() -> None:
    """Commands stand on the quick start alone, which is followed from top to bottom."""
    found = {page: pages.blocks(page) for page in pages.pages() if page != pages.TESTED_ELSEWHERE}
    kinds = {block.language for blocks in found.values() for block in blocks}
    assert kinds <= {"", "python", "text", "{eval-rst}", "{toctree}", "{include}"}
    assert [page for page, blocks in found.items() if any(_is_shell(block) for block in blocks)] == ["quickstart"]


def _is_shell(block: Block) -> bool:
    return not block.language

"""Every example stands in the list, and has a test of its own."""

import re

from tests.examples.programs import EXAMPLES


def test_the_list_names_every_example_and_each_has_a_test() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    listed = re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    tests = {path.name.removeprefix("test_") for path in (EXAMPLES.parent / "tests" / "examples").glob("test_*.py")}
    assert set(listed) == programs
    assert programs <= tests

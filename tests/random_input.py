"""How many examples a test with random input takes: a few and the same ones each time in the suite, many and fresh ones
with scripts/fuzz.
"""

import os
from typing import Any, Final

from hypothesis import settings

#: How many times as many as in the suite.
TIMES: Final = int(os.environ.get("SOTTOVOCE_FUZZ_TIMES", "1"))
#: What holds for every test that says nothing else.
PROFILE: Final = settings(
    derandomize="SOTTOVOCE_FUZZ_TIMES" not in os.environ, database=None, deadline=None, max_examples=100 * TIMES
)


def examples(count: int, **others: Any) -> settings:
    """So many examples in the suite; `others` are settings of Hypothesis."""
    return settings(PROFILE, max_examples=count * TIMES, **others)

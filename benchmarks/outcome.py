"""What one piece of measuring gives: plain data, for the report."""

from dataclasses import dataclass

from .servers import Spent


@dataclass(frozen=True)
class Outcome:
    """One repeat: figures by name, and what each piece of work took."""

    figures: dict[str, float]
    spent: dict[str, Spent]

"""The one exception of this package: a refusal with its name from the list in notation.md. No causes, no bytes."""


class RefusedError(Exception):
    """Input that breaks a rule of the protocol; `reason` is the rule's name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

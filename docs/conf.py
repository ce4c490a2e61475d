"""How the pages in this folder become HTML: scripts/docs. No text of the documentation stands here.

What the reference says of a name comes from its docstring; what is added here is what the code says in another way.
"""

from typing import Any, get_args

from sphinx.application import Sphinx

from sottovoce import Event, SottovoceError

project = "Sottovoce"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "code"  # a single backtick in a docstring is a name in the code
smartquotes = False
html_theme = "furo"
html_title = "Sottovoce"
html_show_copyright = False
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "undoc-members": True, "no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

#: How the union of all events looks in a signature.
EVENTS = " | ".join(f"~sottovoce.events.{each.__name__}" for each in get_args(Event))


def _signature(
    _app: Sphinx, what: str, _name: str, _of: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Nobody makes these objects, so that what their classes take says nothing."""
    if what in ("class", "exception"):
        return "", None
    return signature, (returns or "").replace(EVENTS, "Event") or None


def _docstring(_app: Sphinx, what: str, _name: str, of: Any, _options: Any, lines: list[str]) -> None:
    """A module's docstring is for those who work on it: the page says what readers need. Below an error's stand its
    code, and what to do about it."""
    if what == "module":
        lines.clear()
    if what == "exception" and issubclass(of, SottovoceError):
        lines += [f":code: ``{of.code}``"]
        lines += [f":what to do: {of.hint}"] if of.hint else []


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring)

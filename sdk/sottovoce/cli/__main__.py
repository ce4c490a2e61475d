"""`python -m sottovoce.cli` is the `sottovoce` command."""

from . import main

main()

"""The project's own commands: set up, check, sabotage, demonstrate. Each starts from the shell script of its name.

Nothing here is installed with the package, and nothing in the package imports it.
"""

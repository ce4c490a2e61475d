"""The keyserver and what it shares with the relay never load the SDK: a process of its own shows it."""

import pkgutil
import subprocess
import sys

import sottovoce_hosting
import sottovoce_keyserver

MODULES = [
    module.name
    for package in (sottovoce_hosting, sottovoce_keyserver)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
CHECK = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*[name for name in sys.modules if name == "sottovoce" or name.startswith("sottovoce.")])
"""


def test_no_module_of_the_keyserver_loads_the_sdk() -> None:
    assert {"sottovoce_hosting.guard", "sottovoce_keyserver.routes"} <= set(MODULES)
    loaded = subprocess.run([sys.executable, "-c", CHECK, *MODULES], capture_output=True, text=True, check=True).stdout
    assert loaded == "\n"

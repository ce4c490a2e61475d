"""Settings that hold for every test: the same examples on every run, and no file left behind."""

from hypothesis import settings

settings.register_profile("same examples every time", derandomize=True, database=None, deadline=None)
settings.load_profile("same examples every time")

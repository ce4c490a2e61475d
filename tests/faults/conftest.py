"""The relay in the test's own run, with a clock that the test sets: the relay's own fixtures."""

from tests.sottovoce_relay.conftest import box as box
from tests.sottovoce_relay.conftest import start_relay as start_relay

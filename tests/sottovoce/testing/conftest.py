"""The testing kit's own fixture, as an application has it."""

from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world

"""Every vector of protocol-spec/vectors gives what it says, by our code and by the second implementation."""

from types import ModuleType

import pytest

from . import ours, second
from .form import Vector, to_json, vectors
from .generate.table import CONSTRUCTIONS

VECTORS = list(vectors())
OUTPUTS = {kind.name: kind.outputs for construction in CONSTRUCTIONS for kind in construction.types}


@pytest.mark.parametrize("implementation", [ours, second], ids=["ours", "second"])
@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_vector_gives_what_it_says(vector: Vector, implementation: ModuleType) -> None:
    operation = implementation.OPERATIONS[vector.type]
    if vector.reason is not None:
        with pytest.raises(implementation.Refusal) as caught:
            operation(vector.case)
        assert implementation.reason_of(caught.value) == vector.reason
    else:
        outputs = {name: to_json(value) for name, value in operation(vector.case).items()}
        assert outputs == {name: vector.fields[name] for name in OUTPUTS[vector.type]}

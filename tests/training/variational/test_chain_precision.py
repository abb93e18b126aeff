"""The precision of the moves, as the state takes it."""

import pytest

from tests.helpers.variational import build_state


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"chain_precision = half is unknown; choose float32 or float64"):
        build_state(chain_precision="half")

"""Temperatures that are none."""

import math

import pytest

from lightning_vfe.physics.units import check_temperature


@pytest.mark.parametrize("kelvin", [0.0, -5.0, 1e-300, math.inf, math.nan, 1e300])
def test_a_temperature_that_is_none_ends_in_one_line(kelvin: float) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  (its message is checked below)
        check_temperature(kelvin, "do that")
    line = f"temperature_kelvin = {kelvin} must be positive and finite, from 1 to 1e+09 K; do that"
    assert str(error.value) == line
    check_temperature(6000)

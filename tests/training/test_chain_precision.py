"""The type of numbers of the electron moves, as the datamodule takes it."""

import pytest

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.training.datamodule import MCMCDataModule


def test_an_unknown_precision_is_refused():
    cell = PeriodicCell(num_atoms=2, rs=1.5)
    with pytest.raises(ValueError, match=r"sampler.chain_precision = 'half' is unknown; choose float32 or float64"):
        MCMCDataModule(cell, NestedSampler(cell), chain_precision="half")

"""g(r) in blocks of steps against g(r) of the same steps alone."""

import pytest
import torch

from lightning_vfe.physics.block_series import BlockSeries
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.equilibration import block_length
from lightning_vfe.physics.observables import RadialDistributions


@pytest.mark.parametrize("steps", [1, 64, 65, 130, 300])
def test_the_steps_from_a_block_on(steps: int) -> None:
    cell, generator = PeriodicCell(4, 1.0), torch.Generator().manual_seed(steps)
    protons = cell.length * torch.rand(steps, 3, 4, 3, generator=generator, dtype=torch.float64)
    electrons = cell.length * torch.rand(steps, 3, 2, 4, 3, generator=generator, dtype=torch.float64)
    series = BlockSeries(lambda: RadialDistributions(cell, num_up=2))
    for pair in zip(protons, electrons, strict=True):
        series.update(*pair)
    block = block_length(steps)
    for start in {0, steps // 3 // block * block}:
        alone = RadialDistributions(cell, num_up=2)
        for step in range(start, steps):
            alone.update(protons[step], electrons[step])
        found = series.per_walker(start)
        assert set(found) == set(alone.per_walker())
        for name, values in alone.per_walker().items():
            torch.testing.assert_close(found[name], values, rtol=1e-12, atol=1e-12)

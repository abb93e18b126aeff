"""The choice of a committee."""

import pytest
import torch

from lightning_vfe.labels.committee import Committee, CommitteeSettings
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell

CELL = PeriodicCell(4, 1.25)


def test_a_committee_takes_where_it_disagrees() -> None:
    committee = Committee([YukawaPotential(strength) for strength in (0.9, 1.0, 1.2)], CELL)
    generator = torch.Generator().manual_seed(0)
    positions = CELL.length * torch.rand(40, 4, 3, generator=generator)
    energy, force = committee.disagreement(positions)
    # all energies and forces are proportional to the strength
    spread = float(torch.tensor([0.9, 1.0, 1.2]).std())
    unit = YukawaPotential(1.0)
    torch.testing.assert_close(energy, spread * unit.energy(positions, CELL) / 4)
    torch.testing.assert_close(force, spread * unit.forces(positions, CELL).norm(dim=-1).amax(-1))
    torch.testing.assert_close(committee.energy(positions), unit.energy(positions, CELL) * 3.1 / 3)
    score = torch.maximum(energy / energy.median(), force / force.median())
    chosen = committee.select(positions, 10, CommitteeSettings(random_share=0.0), seed=1)
    assert set(chosen.tolist()) == set(score.topk(10).indices.tolist())
    mixed = committee.select(positions, 10, CommitteeSettings(random_share=0.3), seed=1)
    assert len(set(mixed.tolist())) == 10
    assert set(score.topk(7).indices.tolist()) <= set(mixed.tolist())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CommitteeSettings(size=1), "size = 1"),
        (lambda: CommitteeSettings(random_share=1.5), "random_share = 1.5"),
        (lambda: CommitteeSettings(candidates=0), "candidates = 0"),
    ],
)
def test_settings_out_of_range(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

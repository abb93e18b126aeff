"""Labels of a region: many cells with few configurations each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.region import region_points
from lightning_vfe.models.potential.storage import load_potential, save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.training.potential.datamodule import PARTS, LabelDataModule
from lightning_vfe.training.potential.loss import predict
from lightning_vfe.training.potential.report import NUM_BINS, errors_of
from tests.helpers.labels import write_database

DENSITIES = [1.2 + 0.1 * number for number in range(10)]


@pytest.fixture
def data(tmp_path: Path) -> LabelDataModule:
    """Four configurations of N = 2 at each of ten densities."""
    file = write_database(tmp_path / "labels.db", YukawaPotential(), [(2, rs) for rs in DENSITIES], count=4)
    module = LabelDataModule(str(file), batch_size=3)
    module.read()
    return module


def test_small_cells_share_one_split(data: LabelDataModule) -> None:
    """A tenth of all configurations each, not one of every cell; batches hold one cell; a checkpoint keeps it."""
    sizes = {part: sum(map(len, data.sets[part])) for part in PARTS}
    assert sizes == {"train": 32, "validation": 4, "test": 4}
    assert sorted(row for part in PARTS for group in data.sets[part] for row in group.ids) == list(range(1, 41))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert all(0 < len(batch) <= 3 for batch in batches)
    assert sum(map(len, data.test_dataloader())) == 4
    other = LabelDataModule(data.path, batch_size=3, seed=7)
    other.read()
    other.load_state_dict(data.state_dict())
    for part in PARTS:
        assert [group.ids for group in other.sets[part]] == [group.ids for group in data.sets[part]]


def test_the_region_is_that_of_the_labels_or_the_given_one(data: LabelDataModule) -> None:
    assert data.region == {"rs": [DENSITIES[0], DENSITIES[-1]], "temperature_kelvin": [6000.0, 6000.0]}
    data.metadata["region"] = {"rs": [1.1, 2.2], "temperature_kelvin": [4000.0, 9000.0]}
    assert data.region == {"rs": [1.1, 2.2], "temperature_kelvin": [4000.0, 9000.0]}


def test_errors_stand_in_bins_of_density(data: LabelDataModule) -> None:
    """A potential that is wrong at the low densities shows where."""
    wrong = YukawaPotential(strength=1.2)
    predictions = [(batch, predict(wrong, batch)) for batch in data.train_dataloader()]
    errors = errors_of(predictions)
    assert len(errors) == 1 + NUM_BINS
    assert "num_atoms=2 rs=1.2-1.43" in errors
    counts = [errors[name]["energy_rmse_per_atom"] for name in sorted(errors) if name != "all"]
    assert counts[0] > counts[-1] > 0, "close protons feel the strength most"


def test_a_potential_keeps_its_region(tmp_path: Path) -> None:
    metadata = {"rs_range": [1.2, 2.1], "temperature_kelvin": [4000.0, 9000.0], "label": {}}
    save_potential(YukawaPotential(), tmp_path / "pair.pt", metadata)
    potential, _ = load_potential(tmp_path / "pair.pt")
    potential.check_temperature(4000.0)
    with pytest.raises(SettingError, match=r"temperature_kelvin = 3999.* outside the temperatures 4000 to 9000 K"):
        potential.check_temperature(3999.0)


def test_points_fill_the_region() -> None:
    """Each part of either axis has one point, and the pairs have no trend."""
    points = region_points([1.2, 2.1], [4000, 10000], 40, 3)
    rs, temperature = (np.array([getattr(p, name) for p in points]) for name in ("rs", "temperature_kelvin"))
    assert sorted(np.floor((rs - 1.2) / 0.9 * 40)) == list(range(40))
    assert sorted(np.floor((temperature - 4000) / 6000 * 40)) == list(range(40))
    assert abs(np.corrcoef(rs, temperature)[0, 1]) < 0.1
    assert points == region_points([1.2, 2.1], [4000, 10000], 40, 3)

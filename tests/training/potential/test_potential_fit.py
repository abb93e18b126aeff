"""Potentials fitted to labels that a known potential made: small errors, exact resume, files, errors."""

import functools
import json
import operator
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.training.potential.committee import CommitteeTrainer
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.loss import PotentialLoss, initialise_scales, predict
from lightning_vfe.training.potential.module import PotentialModule
from lightning_vfe.training.potential.report import PotentialReport, errors_of
from lightning_vfe.training.supervised.labelled import (
    BatchOrder,
    LabelledSet,
    share_of_batch,
    train_validation_test_split,
)
from lightning_vfe.training.supervised.weights import with_error_weights
from lightning_vfe.training.torch_optimizer import TorchOptimizer, adamw, half_cosine
from tests.helpers.labels import write_database
from tests.helpers.trainers import quiet_trainer

TRUTH = YukawaPotential(strength=1.0, screening_length=0.9, cutoff=4.0, energy_per_atom=-0.6)


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    torch.set_default_dtype(torch.float64)
    return write_database(tmp_path_factory.mktemp("labels") / "yukawa.db", TRUTH, count=20)


def schnet(seed: int = 0, **settings) -> SchNetPotential:
    torch.manual_seed(seed)
    sizes = {"num_features": 8, "num_interactions": 1, "num_radial": 10, "core_radius": 0.0, "yukawa_length": 0.7}
    return SchNetPotential(**(sizes | settings))


def cosine(num_steps: int) -> TorchOptimizer:
    factor = functools.partial(half_cosine, num_steps=num_steps, final_fraction=0.01)
    return adamw(5e-3, functools.partial(LambdaLR, lr_lambda=factor))


def build(database: Path, optimizer=None, **data) -> tuple[PotentialModule, LabelDataModule]:
    module = PotentialModule(schnet(), optimizer=optimizer or cosine(300), ema_decay=0.98)
    return module, LabelDataModule(str(database), **({"batch_size": 6} | data))


def test_fit_recovers_the_labels(database: Path, tmp_path: Path, capsys) -> None:
    module, data = build(database)
    report = PotentialReport(tmp_path)
    quiet_trainer(300, report).fit(module, datamodule=data)
    quiet_trainer(1, report).test(module, datamodule=data, verbose=False)
    content = json.loads((tmp_path / "potential_summary.json").read_text())
    errors = content["errors"]["all"]
    spreads = [float((part.energy / part.cell.num_atoms).std()) for part in data.sets["train"]]
    assert errors["energy_rmse_per_atom"] < 0.1 * max(spreads)
    assert errors["energy_rmse_per_atom"] < 2e-3
    assert errors["force_rmse"] < 2e-2
    assert errors["pressure_rmse_gpa"] < 100
    assert set(content["errors"]) == {"all", "num_atoms=4 rs=1.25", "num_atoms=6 rs=1.25"}
    assert capsys.readouterr().out == ""
    for message in report.messages:
        Console(width=120).print(message)
    printed = capsys.readouterr().out
    assert "mHa/bohr" in printed
    assert f"potential: {tmp_path}" in printed.replace("\n", "")
    assert (tmp_path / "figures" / "parity.png").stat().st_size > 5000
    # what was written is the best average, with its errors
    stored, metadata = load_potential(tmp_path / "potential.pt")
    assert metadata["rs_range"] == [1.25, 1.25]
    assert metadata["temperature_kelvin"] == 6000.0
    assert metadata["label"]["num_configurations"] == 40
    assert metadata["step"] == 300
    part = data.sets["test"][0]
    assert torch.equal(stored.energy(part.positions, part.cell), predict(module.best, part).energy)
    for name, value in metadata["test_errors"].items():
        assert value == pytest.approx(errors[name], rel=1e-12)
    # and the errors are what their definition says
    found = np.load(tmp_path / "predictions.npz")
    difference = found["force"][:, 1] - found["force"][:, 0]
    assert errors["force_rmse"] == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-10)
    assert errors["force_mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-10)


class Save(L.Callback):
    """Saves after a given step, as LastCheckpoint does: before the validation at the end of an epoch."""

    def __init__(self, step: int, file: Path) -> None:
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer: L.Trainer, *args) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)


@pytest.mark.parametrize("half", [3, 8, 11])
@pytest.mark.parametrize("killed", [False, True])
def test_resumed_fit_equals_the_uninterrupted_one(database: Path, tmp_path: Path, half: int, killed: bool) -> None:
    """Stopped, or killed after a save, inside an epoch and at its end (8 steps); with the plateau's memory."""

    def parts():
        return build(database, optimizer=adamw(5e-3, functools.partial(ReduceLROnPlateau, patience=0)))

    straight = quiet_trainer(20, *([Save(half, tmp_path / "half.ckpt")] if killed else []))
    straight.fit(parts()[0], datamodule=parts()[1])
    straight.save_checkpoint(tmp_path / "straight.ckpt")
    if not killed:
        first = quiet_trainer(half)
        first.fit(parts()[0], datamodule=parts()[1])
        first.save_checkpoint(tmp_path / "half.ckpt")
    second = quiet_trainer(20)
    second.fit(parts()[0], datamodule=parts()[1], ckpt_path=str(tmp_path / "half.ckpt"))
    second.save_checkpoint(tmp_path / "resumed.ckpt")
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("straight", "resumed")]
    for name, value in saved[0]["state_dict"].items():
        assert torch.equal(value, saved[1]["state_dict"][name]), name
    assert saved[0]["LabelDataModule"]["ids"] == saved[1]["LabelDataModule"]["ids"]
    assert saved[0]["LabelDataModule"]["order"]["done"] == saved[1]["LabelDataModule"]["order"]["done"]
    assert saved[0]["lr_schedulers"] == saved[1]["lr_schedulers"]


def test_loss_is_its_formula(database: Path) -> None:
    data = LabelDataModule(str(database))
    data.read()
    part = data.sets["train"][1]
    loss, potential = PotentialLoss(2.0, 3.0, 0.5), schnet()
    initialise_scales(potential, data.sets["train"], loss)
    energies = [group.energy / group.cell.num_atoms for group in data.sets["train"]]
    centred = torch.cat([values - values.mean() for values in energies])
    assert torch.allclose(loss.scales[0], centred.square().mean().sqrt())
    predicted = predict(potential, part, create_graph=True)
    energy, forces = potential.energy_and_forces(part.positions, part.cell)
    pressure = potential.pressure(part.positions, part.cell)
    expected = 2.0 * ((energy - part.energy) / 6).square().mean() / loss.scales[0] ** 2
    expected += 3.0 * (forces - part.forces).square().mean() / loss.scales[1] ** 2
    expected += 0.5 * (pressure - part.pressure).square().mean() / loss.scales[2] ** 2
    assert torch.allclose(loss(predicted, part), expected, rtol=1e-10)
    # the start already has the mean of the labels
    rest = torch.cat(
        [(g.energy - potential.repulsion.energy(g.positions, g.cell)) / g.cell.num_atoms for g in data.sets["train"]]
    )
    assert torch.allclose(potential.energy_per_atom, rest.mean())
    loss(predicted, part).backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for name, parameter in potential.named_parameters()
        if "embedding" not in name
    )


def test_noisy_energies_are_fitted_with_their_errors(tmp_path: Path) -> None:
    """Delta-learning: energies alone, labels of very different quality; the truth is met within the noise."""
    baseline = YukawaPotential(1.0, 0.6, 4.0, -0.5)
    file = write_database(tmp_path / "vmc.db", TRUTH, states=((4, 1.25),), count=60, forces=False, noise=2e-3)
    torch.manual_seed(0)
    potential = DeltaPotential(baseline, schnet(yukawa_strength=0.0, num_features=6))
    module = PotentialModule(potential, optimizer=cosine(200))
    data = LabelDataModule(str(file), batch_size=16)
    quiet_trainer(200).fit(module, datamodule=data)
    weights = data.sets["train"][0].weights
    errors = data.sets["train"][0].energy_error
    assert weights.mean() == pytest.approx(1.0)
    assert weights[errors.argmin()] > 3 * weights[errors.argmax()]
    part = data.sets["test"][0]
    found = module.best.energy(part.positions, part.cell) - TRUTH.energy(part.positions, part.cell)
    first = DeltaPotential(baseline, schnet(yukawa_strength=0.0, num_features=6))
    initialise_scales(first, data.sets["train"], PotentialLoss())
    before = first.energy(part.positions, part.cell) - TRUTH.energy(part.positions, part.cell)
    assert found.square().mean().sqrt() < 0.5 * before.square().mean().sqrt()
    assert not any(parameter.requires_grad for parameter in potential.baseline.parameters())
    assert predict(module.best, part).forces is None
    assert set(errors_of([(part, predict(module.best, part))])["all"]) == {
        "energy_mae_per_atom",
        "energy_rmse_per_atom",
    }


def test_committee_members_differ_and_repeat(database: Path) -> None:
    def make() -> SchNetPotential:
        return SchNetPotential(num_features=4, num_interactions=1, num_radial=6)

    train = CommitteeTrainer(make, steps=20)
    state = torch.get_rng_state()
    members = [train(str(database), seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    cell = PeriodicCell(4, 1.25)
    z = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(0)) * cell.length
    energies = [member.energy(z, cell) for member in members]
    assert torch.equal(energies[0], energies[1])
    assert not torch.allclose(energies[0], energies[2])


def test_committee_members_are_fitted_as_every_potential(database: Path) -> None:
    """A member is the best average of the same fit by hand, and a fit within one epoch has its validation, too."""
    member = CommitteeTrainer(functools.partial(schnet, 3), steps=20, batch_size=6, learning_rate=5e-3)
    found = member(str(database), 7)
    module = PotentialModule(schnet(3), optimizer=cosine(20))
    data = LabelDataModule(str(database), batch_size=6, seed=7)
    quiet_trainer(20, gradient_clip_val=10.0).fit(module, datamodule=data)
    for name, value in module.best.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    heard: list[tuple[int, int]] = []
    trainer = CommitteeTrainer(functools.partial(schnet, 3), steps=2, batch_size=6)
    short = trainer(str(database), 7, lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]
    part = data.sets["validation"][0]
    assert not torch.equal(short.energy(part.positions, part.cell), found.energy(part.positions, part.cell))
    with pytest.raises(ValueError, match="no parameters to fit"):
        CommitteeTrainer(YukawaPotential, steps=1)(str(database), 7)
    with pytest.raises(ValueError, match=r"steps = 0"):
        CommitteeTrainer(YukawaPotential, steps=0)


def test_order_is_complete_and_goes_on() -> None:
    order = BatchOrder([7, 4], 3, seed=5)
    epoch = list(order)
    assert len(epoch) == len(order) == 5
    for number, size in ((0, 7), (1, 4)):
        assert sorted(i for which, index in epoch if which == number for i in index.tolist()) == list(range(size))
    second = [index.tolist() for _, index in order]
    assert second != [index.tolist() for _, index in epoch]
    copy = BatchOrder([7, 4], 3, seed=5)
    list(copy)
    begun = iter(copy)
    half = [next(begun)[1].tolist() for _ in range(2)]
    other = BatchOrder([7, 4], 3, seed=99)
    other.load_state_dict(copy.state_dict())
    assert half + [index.tolist() for _, index in other] == second
    assert [i.tolist() for _, i in other] == [i.tolist() for _, i in order]
    # at the end of an epoch, too
    third = BatchOrder([7, 4], 3, seed=99)
    third.load_state_dict(other.state_dict())
    assert [i.tolist() for _, i in third] == [i.tolist() for _, i in order]


def test_split_is_a_partition_of_its_own_for_each_group() -> None:
    parts = train_validation_test_split(20, (0.1, 0.2), 1, "a", "here")
    assert [len(part) for part in parts] == [14, 2, 4]
    assert torch.cat(parts).sort().values.tolist() == list(range(20))
    assert [p.tolist() for p in parts] == [
        p.tolist() for p in train_validation_test_split(20, (0.1, 0.2), 1, "a", "here")
    ]
    assert parts[0].tolist() != train_validation_test_split(20, (0.1, 0.2), 1, "b", "here")[0].tolist()
    with pytest.raises(ValueError, match=r"^configurations = 2 of here are too few; "):
        train_validation_test_split(2, (0.1, 0.1), 1, "a", "here")


def test_processes_share_a_batch_evenly() -> None:
    """Together they take the whole batch; a batch smaller than their number gives one configuration to each."""
    shares = [share_of_batch(torch.arange(6), rank, 3).tolist() for rank in range(3)]
    assert sorted(functools.reduce(operator.iadd, shares, [])) == list(range(6))
    assert {len(share) for share in shares} == {2}
    assert [share_of_batch(torch.tensor([5, 7]), rank, 4).tolist() for rank in range(4)] == [[5], [7], [5], [7]]


def test_error_weights() -> None:
    arrays = {"positions": np.zeros((2, 2, 3)), "free_energy": np.zeros(2), "energy_error": np.array([0.0, 2e-4])}
    part = LabelledSet.from_arrays(PeriodicCell(2, 1.0), arrays)
    (weighted,) = with_error_weights([part], 1e-4, [part])
    assert weighted.weights.tolist() == pytest.approx([4 / 3, 2 / 3])
    assert LabelledSet.from_arrays(PeriodicCell(2, 1.0), arrays | {"free_energy": np.ones(2)}).energy.tolist() == [1, 1]


def test_bad_data_and_settings(database: Path, tmp_path: Path) -> None:
    for settings, message in [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"test_fraction": 0.0}, "test_fraction = 0.0"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "leaves nothing to train on"),
        ({"energy_error_floor": 0.0}, "energy_error_floor = 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            LabelDataModule(str(database), **settings)
    with pytest.raises(ValueError, match=r"database = .*nowhere.db"):
        LabelDataModule(str(tmp_path / "nowhere.db")).read()
    with pytest.raises(ValueError, match="multiple of the number of processes, 4"):
        LabelDataModule(str(database), batch_size=6).read(num_ranks=4)
    with pytest.raises(ValueError, match=r"ema_decay = 1.0"):
        PotentialModule(schnet(), ema_decay=1.0)
    with pytest.raises(ValueError, match=r"energy_weight = 0.0"):
        PotentialLoss(energy_weight=0.0)
    # the split of a checkpoint with another database
    data = LabelDataModule(str(database))
    data.read()
    state = data.state_dict()
    other = LabelDataModule(str(write_database(tmp_path / "small.db", TRUTH, count=5)))
    other.read()
    with pytest.raises(ValueError, match=r"lacks row .* that the checkpoint's run was fitted to"):
        other.load_state_dict(state)
    grown = LabelDataModule(
        str(write_database(tmp_path / "more.db", TRUTH, states=((4, 1.25), (6, 1.25), (2, 2.0)), count=20))
    )
    grown.read()
    grown.load_state_dict(state)
    assert [len(part) for part in grown.sets["train"]] == [len(part) for part in data.sets["train"]]

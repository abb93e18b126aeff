"""The flow by maximum likelihood: exact where the distribution is known, both divergences, resume, sources, its flow
reused.
"""

import functools
import json
import math
from pathlib import Path

import ase.io
import lightning as L
import numpy as np
import pytest
import torch
from rich.console import Console
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_vfe.labels.label import Configuration
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.log_z import LogZEntry, log_z_file, store_entry
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.potential.storage import load_potential, potential_hash, save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.training.flow_mle.datamodule import ConfigurationDataModule
from lightning_vfe.training.flow_mle.module import FlowMaximumLikelihood
from lightning_vfe.training.flow_mle.report import FlowReport
from lightning_vfe.training.flow_mle.sources import (
    ChainSource,
    DatabaseSource,
    TrajectorySource,
    boltzmann_density,
)
from lightning_vfe.training.torch_optimizer import adamw
from lightning_vfe.workflows.restore import restore
from tests.helpers.flows import make_flow
from tests.helpers.labels import write_database
from tests.helpers.states import states_at, strata_at
from tests.helpers.trainers import quiet_trainer

CELL, SYSTEM = PeriodicCell(2, 1.25), System(2)
TEMPERATURE = 20000.0
POINT, STRATA = StatePoint(CELL.rs, TEMPERATURE), strata_at(CELL, kelvin=TEMPERATURE)
YUKAWA = YukawaPotential(1.0, 0.7, 3.0)


def boltzmann(potential, cell=CELL) -> BoltzmannBase:
    """The Boltzmann distribution of two protons, ln Z by quadrature over their separation: smooth and periodic."""
    axis = (torch.arange(24, dtype=torch.float64) + 0.5) / 24 * cell.length
    grid = torch.cartesian_prod(axis, axis, axis)
    z = torch.stack([torch.zeros_like(grid), grid], dim=1)
    energy = torch.cat([potential.energy(part, cell) for part in z.split(2000)])
    kT = KELVIN_TO_HARTREE * TEMPERATURE
    log_z = 2 * math.log(cell.volume) + float(torch.logsumexp(-energy / kT, 0)) - math.log(len(grid))
    return BoltzmannBase(cell, potential, TEMPERATURE, log_z, 0.0)


def build(
    target: BoltzmannBase | None, source=None, **settings
) -> tuple[FlowMaximumLikelihood, ConfigurationDataModule]:
    torch.manual_seed(0)
    flow = EquivariantFlow(SYSTEM, POINT, num_steps=1, num_layers=1, num_channels=2, num_radial=4)
    module = FlowMaximumLikelihood(
        SYSTEM,
        STRATA,
        ProtonDensity(UniformBase(SYSTEM), flow),
        target,
        adamw(4e-3),
        equilibration_sweeps=4,
        test_sweeps=8,
        num_walkers=64,
    )
    if source is None:
        assert target is not None
        source = ChainSource(target, TEMPERATURE, 400, num_walkers=200, equilibration_steps=60, spacing=30)
    return module, ConfigurationDataModule(CELL, source, **({"batch_size": 64} | settings))


def trainer(max_steps: int, *callbacks: L.Callback) -> L.Trainer:
    return quiet_trainer(max_steps, *callbacks, gradient_clip_val=10.0)


def measured(module: FlowMaximumLikelihood, data: ConfigurationDataModule) -> dict:
    trainer(1).test(module, datamodule=data, verbose=False)
    return dict(module.estimates)


def test_uniform_data_have_a_known_likelihood() -> None:
    """Ideal gas and an identity flow: -ln p = 3 ln L per atom, both divergences vanish, F_p = F; no noise anywhere."""
    ideal = BoltzmannBase(CELL, YukawaPotential(strength=0.0), TEMPERATURE, 2 * math.log(CELL.volume), 0.02)
    found = measured(*build(ideal))
    assert found["negative_log_likelihood"].value == pytest.approx(3 * math.log(CELL.length), abs=1e-12)
    assert abs(found["kl_data_model"].value) < 1e-12
    assert abs(found["kl_model_data"].value) < 1e-10
    assert found["model_free_energy"].value == pytest.approx(found["data_free_energy"].value, abs=1e-12)
    # the error of ln Z, 0.02 for two atoms, is in both
    assert found["kl_data_model"].error == pytest.approx(0.01, rel=1e-9) == found["kl_model_data"].error


def test_both_divergences_fall(tmp_path: Path, capsys) -> None:
    """From the uniform density to that of two repelling protons: both divergences positive, and smaller than before."""
    target = boltzmann(YUKAWA)
    module, data = build(target)
    before = measured(module, data)
    report = FlowReport(tmp_path)
    trainer(60, report).fit(module, datamodule=data)
    trainer(1, report).test(module, datamodule=data, verbose=False)
    after = module.estimates
    # the identity's forward divergence is known: <-E/kT - ln Z + 6 ln L> of the data
    test = data.part(2)
    exact = (target.log_prob(test) + 6 * math.log(CELL.length)).mean() / 2
    assert before["kl_data_model"].value == pytest.approx(float(exact), rel=1e-10)
    for name in ("kl_data_model", "kl_model_data"):
        assert after[name].value > -3 * after[name].error
        assert after[name].value < 0.5 * before[name].value, name
    content = json.loads((tmp_path / "flow_summary.json").read_text())
    assert content["negative_determinants"] == 0.0
    assert content["step"] == 60
    kT = KELVIN_TO_HARTREE * TEMPERATURE
    difference = content["model_free_energy_per_atom"]["value"] - content["data_free_energy_per_atom"]["value"]
    assert content["kl_model_data_per_atom"]["value"] == pytest.approx(difference / kT, rel=1e-9)
    assert capsys.readouterr().out == ""
    for message in report.messages:
        Console(width=120).print(message)
    assert "KL(p || Boltzmann)" in capsys.readouterr().out


def test_a_plateau_of_the_validation_loss_lowers_the_rate() -> None:
    ideal = BoltzmannBase(CELL, YukawaPotential(strength=0.0), TEMPERATURE, 2 * math.log(CELL.volume), 0.0)
    module, data = build(ideal)
    never_better = functools.partial(ReduceLROnPlateau, patience=0, threshold=1e9, threshold_mode="abs")
    module.optimizer_settings = adamw(4e-3, never_better)
    fit = trainer(15)  # three epochs
    fit.fit(module, datamodule=data)
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(4e-5, rel=1e-12)
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs a validation loss, and this training has none"):
        module.optimizer_settings.configure(module.proton_density)


def test_unfolding_term_has_the_gradient_of_the_norm() -> None:
    """c = <|det|> over the cell, for a map that folds; its derivative along the readouts, by differences."""
    module, _ = build(None, TrajectorySource("none"))
    flow = make_flow(CELL, seed=6, strength=4.0, num_steps=1, num_layers=1)
    module.proton_density.flow = flow
    axis = (torch.arange(14) + 0.5) / 14 * CELL.length
    grid = torch.cartesian_prod(axis, axis, axis)
    x = torch.stack([torch.zeros_like(grid), grid], dim=1)
    readouts = {name: value for name, value in flow.named_parameters() if name.endswith("readout")}

    @torch.no_grad()
    def determinants(change: float) -> torch.Tensor:
        for value in readouts.values():
            value.mul_(1.0 + change)
        _, log_abs_det, sign = flow.to_base(x, states_at(CELL, len(x), kelvin=TEMPERATURE))
        for value in readouts.values():
            value.div_(1.0 + change)
        return log_abs_det.exp() * sign

    signed = determinants(0.0)
    norm, step = float(signed.abs().mean()), 1e-3
    assert norm > 1.01, (norm, float(signed.mean()))
    assert abs(float(signed.mean()) - 1.0) < 0.02, (norm, float(signed.mean()))
    expected = (determinants(step).abs().mean() - determinants(-step).abs().mean()).item() / (2 * step * norm)
    picked = torch.multinomial(signed.abs(), 8000, replacement=True, generator=torch.Generator().manual_seed(1))
    estimates = []
    for walkers in x[picked].split(1000):
        module.unfolding(walkers).backward()
        estimates.append(sum(float((value.grad * value).sum()) for value in readouts.values()) * CELL.num_atoms)
        flow.zero_grad()
    found = torch.tensor(estimates)
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / len(found) ** 0.5 + 0.02 * abs(expected)


def test_a_boltzmann_base_is_its_own_target() -> None:
    """Chains instead of draws; an identity flow on the distribution of the data has no divergence, without noise."""
    target = boltzmann(YUKAWA)
    module, data = build(target)
    module.proton_density.base = target
    found = measured(module, data)
    assert abs(found["kl_data_model"].value) < 1e-10
    assert abs(found["kl_model_data"].value) < 1e-10
    assert module.negative_determinants == 0.0


def test_folds_are_found_on_samples_of_the_model() -> None:
    """Also where none of the held-out data lies in one."""
    module, data = build(None, TrajectorySource("none"), batch_size=4)
    module.test_sweeps = 40  # one sample in a thousand lies in a fold
    flow = make_flow(CELL, seed=6, strength=4.0, num_steps=1, num_layers=1)
    module.proton_density.flow = flow
    x = torch.rand(200, 2, 3) * CELL.length
    with torch.no_grad():
        sound = x[flow.to_base(x, states_at(CELL, len(x), kelvin=TEMPERATURE))[2] > 0]
    assert 12 <= len(sound) < len(x)
    data._take(tuple(sound[:12].split(4)))
    measured(module, data)
    assert module.negative_determinants > 0.0


def test_resumed_fit_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    straight = trainer(9)
    module, data = build(boltzmann(YUKAWA), batch_size=100)
    straight.fit(module, datamodule=data)
    first = trainer(5)
    module_a, data_a = build(boltzmann(YUKAWA), batch_size=100)
    first.fit(module_a, datamodule=data_a)
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = trainer(9)
    module_b, data_b = build(boltzmann(YUKAWA), batch_size=100)
    # the configurations come from the checkpoint
    data_b.source.draw = None  # type: ignore[assignment, method-assign]
    resumed.fit(module_b, datamodule=data_b, ckpt_path=str(tmp_path / "half.ckpt"))
    for one, other in zip(module.parameters(), module_b.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(one, other) for one, other in zip(data.parts, data_b.parts, strict=True))


def test_sources_of_files(tmp_path: Path) -> None:
    database = write_database(tmp_path / "labels.db", YUKAWA, states=((2, 1.25), (4, 1.25)), count=9)
    drawn = DatabaseSource(str(database)).draw(CELL, 0)
    assert drawn.shape == (9, 2, 3)
    assert drawn.dtype == torch.float64
    with pytest.raises(ValueError, match=r"database = .* no configurations of num_atoms = 2, rs = 1.5"):
        DatabaseSource(str(database)).check(PeriodicCell(2, 1.5))
    with pytest.raises(ValueError, match="database"):
        DatabaseSource(str(tmp_path / "none.db")).check(CELL)
    frames = [Configuration(z.numpy(), CELL.length).to_atoms() for z in drawn]
    ase.io.write(tmp_path / "run.xyz", frames)
    read = TrajectorySource(str(tmp_path / "run.xyz"), skip=2).draw(CELL, 0)
    assert torch.allclose(read, CELL.wrap(drawn[2:]), atol=1e-6)
    with pytest.raises(ValueError, match="skip = 9 leaves none of the 9 frames"):
        TrajectorySource(str(tmp_path / "run.xyz"), skip=9).check(CELL)
    with pytest.raises(ValueError, match=r"trajectory = .*none.xyz does not exist"):
        TrajectorySource(str(tmp_path / "none.xyz")).check(CELL)
    # without the distribution of the data only the likelihood is known
    module, data = build(None, TrajectorySource(str(tmp_path / "run.xyz")), batch_size=4)
    assert set(measured(module, data)) == {"negative_log_likelihood"}


def test_distribution_of_stored_files(tmp_path: Path) -> None:
    assert boltzmann_density(SYSTEM, STRATA, None) is None
    file = tmp_path / "p.pt"
    save_potential(YUKAWA, file, {"rs_range": [1.25, 1.25], "temperature_kelvin": TEMPERATURE, "label": {}})
    with pytest.raises(ValueError, match=r"^log_z_path = .*lightning-vfe log-z"):
        boltzmann_density(SYSTEM, STRATA, str(file))
    with pytest.raises(ValueError, match=r"^potential_path"):
        boltzmann_density(SYSTEM, STRATA, str(tmp_path / "q.pt"))
    entry = LogZEntry(2, 1.25, TEMPERATURE, 5.0, 0.1, potential_hash(load_potential(file)[0]), True)
    store_entry(log_z_file(file), entry)
    found = boltzmann_density(SYSTEM, STRATA, str(file))
    assert found is not None
    assert found.log_z == 5.0


def test_flow_of_a_checkpoint_is_taken_over(tmp_path: Path) -> None:
    module, data = build(boltzmann(YUKAWA))
    run = trainer(3)
    run.fit(module, datamodule=data)
    run.save_checkpoint(tmp_path / "flow.ckpt")
    content = torch.load(tmp_path / "flow.ckpt", weights_only=True)
    other = EquivariantFlow(
        System(4), StatePoint(1.3, TEMPERATURE), num_steps=1, num_layers=1, num_channels=2, num_radial=4
    )
    restore(other, content, "proton_density.flow", "flow_ckpt", "flow.ckpt")
    for one, two in zip(module.proton_density.flow.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    smaller = EquivariantFlow(SYSTEM, POINT, num_layers=1, num_channels=3, num_radial=4)
    with pytest.raises(
        ValueError, match=r"flow_ckpt = flow.ckpt is of another proton_density.flow: parameter .* here but"
    ):
        restore(smaller, content, "proton_density.flow", "flow_ckpt", "flow.ckpt")
    with pytest.raises(ValueError, match=r"flow_ckpt = x holds no proton_density.flow"):
        restore(other, {"state_dict": {"wavefunction.a": torch.zeros(1)}}, "proton_density.flow", "flow_ckpt", "x")
    name = next(key for key in content["state_dict"] if key.startswith("proton_density.flow."))
    content["state_dict"][name] = content["state_dict"][name] * math.nan
    with pytest.raises(ValueError, match="not finite"):
        restore(other, content, "proton_density.flow", "flow_ckpt", "flow.ckpt")


def test_bad_batches(tmp_path: Path) -> None:
    for settings, message in [
        ({"batch_size": 0}, "^batch_size = 0"),
        ({"test_fraction": 1.0}, "^test_fraction = 1.0"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "leaves nothing to train on"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(None, TrajectorySource("none.xyz"), **settings)
    with pytest.raises(ValueError, match="multiple of the number of processes, 5"):
        build(boltzmann(YUKAWA))[1].read(num_ranks=5)
    frames = [Configuration(z, CELL.length).to_atoms() for z in np.random.default_rng(0).random((2, 2, 3))]
    ase.io.write(tmp_path / "two.xyz", frames)
    with pytest.raises(ValueError, match=r"^configurations = 2 of data.source are too few; "):
        build(None, TrajectorySource(str(tmp_path / "two.xyz")))[1].part(0)

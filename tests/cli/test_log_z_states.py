"""`lightning-vfe log-z` with several state points: one problem, joint errors, and the base that takes the result."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.log_z.replica_exchange import ReplicaExchange
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.boltzmann_states import BoltzmannStates
from lightning_vfe.models.base.log_z import joint_covariance, read_entries
from lightning_vfe.models.potential.storage import save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from tests.helpers.plasma import pair_grid

QUICK = ["log_z.num_chains=6", "log_z.num_sweeps=60", "log_z.max_sweeps=60", "log_z.pilot_sweeps=10", "device=cpu"]
LOOSE = ["log_z.target_error_per_atom=0.2", "log_z.num_bootstraps=20", "num_samples=20"]
SHORT = ["log_z.num_chains=2", "log_z.num_steps=1", "log_z.num_sweeps=30", "log_z.max_sweeps=30"]
SHORT += ["log_z.pilot_sweeps=10", "log_z.num_bootstraps=10", "log_z.spacing=3", "num_samples=0", "device=cpu"]
STATES = "system.states=[[1.2,6000],[1.3,6000],[1.3,9000]]"
POTENTIAL = YukawaPotential(screening_length=0.6)


@pytest.fixture
def potential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stored potential of a region of states, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    metadata = {"rs_range": [1.2, 1.3], "temperature_kelvin": [4000.0, 9000.0], "label": {}}
    save_potential(POTENTIAL, tmp_path / "pair.pt", metadata)
    return tmp_path / "pair.pt"


def exact_log_z(point: StatePoint, points: int = 24, potential: YukawaPotential = POTENTIAL) -> float:
    """One proton anywhere, the relative vector on a grid of the whole cell."""
    cell = point.cell(2)
    with torch.no_grad():
        parts = [potential.energy(part, cell) for part in pair_grid(cell, points).split(4096)]
    total = torch.logsumexp(-torch.cat(parts) / point.kT, 0).item()
    return total - 3 * math.log(points) + 6 * math.log(cell.length)


def test_three_states_from_one_problem(potential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ln Z agrees with quadrature within 3 errors; entries know their covariance; a grid's base takes them."""
    code = main(["log-z", "potential.path=pair.pt", "system.num_atoms=2", STATES, *QUICK, *LOOSE])
    printed = capsys.readouterr().out
    entries = read_entries(potential.parent / "pair.log_z.json")
    assert code == (0 if entries[0].converged else 1)
    assert "one MBAR problem for all states" in printed
    assert "with the covariance of the states" in printed
    points = [StatePoint(1.2, 6000.0), StatePoint(1.3, 6000.0), StatePoint(1.3, 9000.0)]
    assert [(entry.rs, entry.temperature_kelvin) for entry in entries] == [(p.rs, p.temperature_kelvin) for p in points]
    for entry, point in zip(entries, points, strict=True):
        exact = exact_log_z(point)
        print(point, entry.log_z, entry.log_z_error, exact)
        assert abs(entry.log_z - exact) < 3 * entry.log_z_error
        assert entry.log_z_error < 0.2
        assert len(entry.covariances) == 3
    covariance = joint_covariance(entries)
    assert np.allclose(covariance, covariance.T)
    assert covariance[1, 2] != 0.0
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    content = json.loads(Path("runs/log_z/integration.json").read_text())
    assert np.allclose(sorted(np.diag(content["covariance"])), sorted(np.diag(covariance)))
    assert entries[0].converged, entries[0].reasons
    assert not list(Path("runs/log_z").glob("sampling/*")), "the samples of a good result are not kept"

    strata = Strata.of(states=[[p.rs, p.temperature_kelvin] for p in points])
    base = BoltzmannBase.from_files(System(2), strata, potential)
    assert isinstance(base, BoltzmannStates)
    walkers = strata.walker_states(torch.tensor([0, 2, 1, 0, 2]), torch.zeros(0, dtype=torch.float64))
    z = 2.0 * torch.rand(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for walker, which in enumerate([0, 2, 1, 0, 2]):
        point, entry = points[which], entries[which]
        single = BoltzmannBase(point.cell(2), POTENTIAL, point.temperature_kelvin, entry.log_z, entry.log_z_error)
        assert torch.allclose(base.energy(z, walkers)[walker], single.energy(z[walker]))
        assert torch.allclose(base.log_prob(z, walkers)[walker], single.log_prob(z[walker]))
        assert torch.allclose(base.free_energy(walkers)[walker], single.free_energy(walkers)[walker])
        assert torch.allclose(base.free_energy_error(walkers)[walker], single.free_energy_error(walkers)[walker])

    def log_prob(one: torch.Tensor, *state: torch.Tensor) -> torch.Tensor:
        return base.log_prob(one, WalkerStates(*state))

    mapped = torch.func.vmap(torch.func.grad(log_prob))(z, walkers.rs, walkers.kT, walkers.twist)
    wanted = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(base.log_prob(wanted, walkers).sum(), wanted)
    assert torch.allclose(mapped, gradient)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["log-z", "system.rs=[1.2,1.5]"], "system.rs = 1.5 is outside the densities rs = 1.2 to 1.3"),
        (["log-z", "system.temperature_kelvin=9500"], "system.temperature_kelvin = 9500.0 is outside the temperatures"),
        (
            ["fit", "base=schnet", "base.potential_path=pair.pt", "system.temperature_kelvin=3000"],
            "system.temperature_kelvin = 3000.0 is outside the temperatures 4000 to 9000 K",
        ),
        (
            ["fit", "base=schnet", "base.potential_path=pair.pt", "system.rs=[1.2,1.3]"],
            "run: lightning-vfe log-z",
        ),
    ],
)
def test_a_state_outside_the_region_is_one_line(
    potential: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words
    path = ["potential.path=pair.pt"] if verb == "log-z" else []
    assert main([verb, *path, "system.num_atoms=2", *rest]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_an_interrupted_command_resumes(
    potential: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The samples made before Ctrl-C are kept, and the same command ends with the numbers of a whole one."""
    words = ["log-z", "potential.path=pair.pt", "system.num_atoms=2", *SHORT]
    sweep, made = ReplicaExchange.sweep, {"sweeps": 0, "limit": 55}

    def counted(chains: ReplicaExchange, num_steps: int, adapt: bool) -> torch.Tensor:
        made["sweeps"] += 1
        if made["sweeps"] > made["limit"]:
            raise KeyboardInterrupt
        return sweep(chains, num_steps, adapt)

    monkeypatch.setattr(ReplicaExchange, "sweep", counted)
    assert main(words) == 130
    assert "the same command resumes with the samples" in capsys.readouterr().err
    assert list(Path("runs/log_z/sampling").glob("*/*.pt"))
    made |= {"sweeps": 0, "limit": 10**9}
    assert main(words) in (0, 1)
    assert made["sweeps"] < 45
    (resumed,) = read_entries("pair.log_z.json")
    assert main([*words, "run_dir=runs/whole", "log_z_path=whole.json"]) in (0, 1)
    (whole,) = read_entries("whole.json")
    assert (resumed.log_z, resumed.log_z_error) == (whole.log_z, whole.log_z_error)


def test_states_are_added_and_the_summary_is_that_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state between two that overlap by 0.026 is named and stored; summary.json holds the wanted ones, for `eos`."""
    monkeypatch.chdir(tmp_path)
    metadata = {"rs_range": [1.2, 3.6], "temperature_kelvin": [4000.0, 9000.0], "label": {}}
    strong = YukawaPotential(strength=5.0, screening_length=0.6, cutoff=2.5)
    save_potential(strong, tmp_path / "pair.pt", metadata)
    words = ["potential.path=pair.pt", "system.num_atoms=2", "system.rs=[1.2,3.6]"]
    words += ["log_z.min_overlap=0.06", "log_z.num_chains=4", "log_z.num_steps=2", "log_z.num_sweeps=40"]
    words += ["log_z.max_sweeps=40", "log_z.pilot_sweeps=12", "log_z.target_error_per_atom=0.4", "log_z.spacing=1.5"]
    words += ["log_z.num_bootstraps=10", "num_samples=12", "device=cpu"]
    code = main(["log-z", *words])
    printed = capsys.readouterr().out
    assert "states added where neighbours overlapped too little: " in printed
    assert "rs = 2.0785, T = 6000 K" in printed
    entries = read_entries("pair.log_z.json")
    assert len(entries) >= 3
    for entry in entries:
        exact = exact_log_z(StatePoint(entry.rs, entry.temperature_kelvin), potential=strong)
        assert abs(entry.log_z - exact) < 3.5 * entry.log_z_error
        assert len(entry.covariances) == len(entries)
    summary = json.loads(Path("runs/log_z/summary.json").read_text())
    assert code == (0 if not json.loads(Path("runs/log_z/integration.json").read_text())["reasons"] else 1)
    assert summary["system"]["states"] == [[1.2, 6000.0], [3.6, 6000.0]]
    assert summary["converged"] == (not summary["reasons"])
    assert summary["diagnostics"]["num_windows"] > len(entries)
    assert {"command", "code_version", "date"} <= set(summary["provenance"])
    assert summary["units"]["pressure_gpa"] == "GPa"
    for state in summary["states"]:
        (entry,) = [e for e in entries if e.is_at(2, state["rs"], state["temperature_kelvin"])]
        kT = StatePoint(entry.rs, entry.temperature_kelvin).kT
        assert state["free_energy_per_atom"]["error"] == pytest.approx(kT * entry.log_z_error / 2)
        assert state["error_budget"]["free_energy_per_atom"]["log_z"] == state["free_energy_per_atom"]["error"]
        assert set(state["diagnostics"]) == {"r_hat", "autocorrelation_time", "effective_sample_size"}
        assert state["converged"] == (not state["reasons"] and not joint_reasons(summary))
    found = lv.eos(["runs/log_z"])
    assert len(found.table) == 2
    assert all(len(point.shared) == 1 for point in found.fit.points)


def joint_reasons(summary: dict) -> list[str]:
    """Those of ln Z, which hold for all states."""
    return [reason for reason in summary["reasons"] if not reason.startswith("rs = ")]

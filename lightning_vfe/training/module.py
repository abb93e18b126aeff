"""The variational free energy as a LightningModule."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from lightning_vfe.models.proton_density import ProtonDensity, ProtonTerms
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction, log_psi_of_walkers
from lightning_vfe.optim.solve import ScoreBlock
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.free_energy import free_energy_terms
from lightning_vfe.physics.local_energy import LocalEnergy, local_energy
from lightning_vfe.physics.observables import RadialDistributions
from lightning_vfe.physics.screening import check_accuracy
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.units import GROUND_STATE, KELVIN_TO_HARTREE, check_temperature
from lightning_vfe.training.batch import Batch
from lightning_vfe.training.metrics import FreeEnergyMetric, with_base_error
from lightning_vfe.training.objective import flow_loss, wavefunction_loss
from lightning_vfe.training.optimizers import Adam, NaturalGradient
from lightning_vfe.training.score_blocks import flow_block, wavefunction_block
from lightning_vfe.training.summary import Summary

WATCHED = {"F": "free_energy_per_atom", "E": "energy_per_atom", "S": "entropy_per_atom", "P": "pressure_gpa"}
"""What the progress bar shows, over the last RECENT_STEPS steps."""
RECENT_STEPS = 50


class Sample(NamedTuple):
    """One batch with its energies; no gradients."""

    electronic: LocalEnergy
    protons: ProtonTerms | None
    terms: dict[str, Tensor]
    """All reported quantities per atom, of each proton walker (W,), or of each electron walker (W B,) if the protons
    are fixed: the independent samples of the error bars."""


class VariationalFreeEnergy(L.LightningModule):
    r"""Minimises F = E_{x~p}[E_{r~|psi_x|^2} E_loc(x, r) + kT ln p(x)] + momenta over flow and wavefunction together.

    Args:
        cell: the periodic cell.
        wavefunction: psi_x(r), with log_psi(protons, electrons, twist).
        proton_density: p(x); None for fixed protons, the T = 0 ground state of the electrons.
        temperature_kelvin: T; not used when the protons are fixed.
        optimizer: settings of the optimizer (its configure method builds it).
        clip_width: gradients use energies clipped at this many mean absolute deviations around the median.
        ewald_accuracy: relative accuracy of the Coulomb energies.

    Raises:
        ValueError: T or clip_width is not positive.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        wavefunction: GeminalWavefunction,
        proton_density: ProtonDensity | None,
        temperature_kelvin: float,
        optimizer: Adam | NaturalGradient | None = None,
        clip_width: float = 5.0,
        ewald_accuracy: float = 1e-8,
    ) -> None:
        super().__init__()
        if proton_density is not None:
            check_temperature(temperature_kelvin, GROUND_STATE)
        if not clip_width > 0:
            raise ValueError(f"module.clip_width = {clip_width} must be positive; 5 is the usual choice")
        self.cell = cell
        self.wavefunction = wavefunction
        self.proton_density = proton_density
        self.temperature_kelvin = temperature_kelvin
        self.optimizer_settings = optimizer or NaturalGradient()
        # The natural gradient takes scores instead of the derivative of a loss.
        self.automatic_optimization = not isinstance(self.optimizer_settings, NaturalGradient)
        self.clip_width = clip_width
        check_accuracy(ewald_accuracy, "module.ewald_accuracy")
        self.ewald = Ewald(cell, relative_accuracy=ewald_accuracy)
        self.metric = FreeEnergyMetric()
        self.trained_steps: Tensor
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))
        self.radial: RadialDistributions | None = None
        self.summary: Summary | None = None
        self.recent: deque[Tensor] = deque(maxlen=RECENT_STEPS)  # (terms, W) of this process

    # --- energies ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Sample:
        """All energies of a batch."""
        electronic = local_energy(self.ewald, self.wavefunction.log_psi, batch.protons, batch.electrons, batch.twists)
        kinetic, v_pp, v_pe, v_ee = electronic.kinetic.real, electronic.v_pp, electronic.v_pe, electronic.v_ee
        if self.proton_density is None:
            flat = kinetic.flatten(), v_pp.flatten(), v_pe.flatten(), v_ee.flatten()
            return Sample(electronic, None, free_energy_terms(self.cell, self.temperature_kelvin, *flat))
        protons = self.proton_density.evaluate(batch.protons)
        terms = free_energy_terms(
            self.cell,
            self.temperature_kelvin,
            kinetic.mean(1),
            v_pp.mean(1),
            v_pe.mean(1),
            v_ee.mean(1),
            log_prob=protons.log_prob,
            log_abs_det_dzdx=protons.log_abs_det_dzdx,
            base_energy=protons.base_energy,
            base_free_energy=self.proton_density.base.free_energy,
        )
        return Sample(electronic, protons, terms)

    def gather(self, values: Tensor) -> Tensor:
        """Values (W, ...) of all processes, along the first dimension."""
        if self._trainer is None or self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(values)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    # --- steps ------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The number whose gradient is that of F, or one natural-gradient step; the values go to the loggers."""
        sample = self.evaluate(batch)
        self.trained_steps += 1
        loss = None
        if self.automatic_optimization:
            loss = self.loss(batch, sample)
        else:
            self._update(batch, sample)
        self._log_step(batch, sample)
        self.recent.append(torch.stack([sample.terms[name] for name in WATCHED.values()]).cpu())
        return loss

    def _update(self, batch: Batch, sample: Sample) -> None:
        """One step of the natural gradient."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer) and isinstance(schedule, LRScheduler)
        optimizer.step(closure=lambda: self.score_blocks(batch, sample))
        schedule.step()
        self.log_dict(optimizer.optimizer.report, batch_size=1)  # type: ignore[attr-defined]

    def score_blocks(self, batch: Batch, sample: Sample) -> dict[str, ScoreBlock]:
        """Scores and clipped energies of the blocks that have something to learn."""
        settings, total, density = self.optimizer_settings, sample.electronic.total, self.proton_density
        assert isinstance(settings, NaturalGradient)
        shared = self.clip_width, self.gather, settings.score_chunk
        blocks = {}
        if _learns(self.wavefunction):
            walkers = self.global_rank * len(total) + torch.arange(len(total), device=total.device)
            groups, same = (walkers, None) if density is not None else (batch.strata, batch.strata)
            blocks["wavefunction"] = wavefunction_block(self.wavefunction, batch, total, groups, same, *shared)
        if density is not None and _learns(density):
            kT = KELVIN_TO_HARTREE * self.temperature_kelvin
            blocks["flow"] = flow_block(density, batch.protons, total.real.mean(1), kT, *shared)
        return blocks

    def loss(self, batch: Batch, sample: Sample) -> Tensor:
        """Score-function objective of both blocks, see training/objective.py."""
        log_psi = log_psi_of_walkers(self.wavefunction, batch.protons, batch.electrons, batch.twists)
        total = sample.electronic.total
        same_protons = batch.strata if self.proton_density is None else None
        loss = wavefunction_loss(log_psi, total, self.clip_width, self.gather, same_protons)
        if self.proton_density is not None:
            kT = KELVIN_TO_HARTREE * self.temperature_kelvin
            log_prob = self.proton_density.log_prob(batch.protons)
            loss = loss + flow_loss(log_prob, total.real.mean(1), kT, self.clip_width, self.gather)
        return loss

    def _log_step(self, batch: Batch, sample: Sample) -> None:
        """Means over the walkers of this step with the scatter of the walkers as error: for watching, not results."""
        values = {}
        for name, term in sample.terms.items():
            walkers = self.gather(term)
            values[name] = walkers.mean()
            values[f"{name}_error"] = walkers.std() / walkers.numel() ** 0.5
        values |= self.diagnostics(batch, sample)
        self.log_dict(values, batch_size=1)

    def diagnostics(self, batch: Batch, sample: Sample) -> dict[str, Tensor]:
        """Acceptances, widths, spread of the local energy, negative determinants: means over all processes."""
        total = sample.electronic.total
        deviation = total - total.mean(1, keepdim=True)
        report = batch.report
        values = {
            "local_energy_variance": self.gather(deviation.abs().square().mean(1)).mean(),
            "electron_acceptance": report.electron_acceptance,
            "electron_width": report.electron_width,
            "electron_drift": report.electron_drift,
            "num_stranded": report.num_stranded,
        }
        if sample.protons is not None:
            assert report.proton_acceptance is not None and report.proton_width is not None
            negative = (sample.protons.sign_det_dzdx <= 0).to(total.real.dtype)
            values |= {
                "negative_determinants": self.gather(negative).mean(),
                "proton_acceptance": report.proton_acceptance,
                "proton_width": report.proton_width,
            }
            if report.num_failed_inversions is not None:
                values["num_failed_inversions"] = report.num_failed_inversions
            if report.delayed_acceptance is not None:
                values["delayed_acceptance"] = report.delayed_acceptance
        return values

    def recent_estimates(self) -> dict[str, str]:
        """F +- error, E, S, P and R-hat of the last steps, of the walkers of this process; all finite, or left out."""
        series = torch.stack(list(self.recent), dim=1)  # (terms, steps, W)
        series = series[:, torch.isfinite(series).all(dim=-1).all(dim=0)]
        if series.shape[1] == 0:
            return dict.fromkeys((*WATCHED, "R-hat"), "nan")
        found = {label: estimate(series[i]) for i, label in enumerate(WATCHED)}
        free_energy = found["F"]
        shown = {"F": f"{free_energy.value:.4f}+-{free_energy.error:.4f}", "E": f"{found['E'].value:.4f}"}
        shown |= {"S": f"{found['S'].value:.2f}", "P": f"{found['P'].value:.0f}"}
        return shown | {"R-hat": f"{free_energy.r_hat:.2f}"}

    # --- measuring with frozen parameters --------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring."""
        self.metric.reset()
        self.radial = RadialDistributions(self.cell)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure with frozen parameters."""
        assert self.radial is not None
        sample = self.evaluate(batch)
        strata = batch.strata
        if self.proton_density is None:
            strata = strata.repeat_interleave(batch.electrons.shape[1])
        self.metric.update(sample.terms, self.diagnostics(batch, sample), strata)
        self.radial.update(batch.protons, batch.electrons)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Put the result together, on all processes."""
        assert self.radial is not None
        per_walker = {
            name: self.gather(torch.as_tensor(values)).cpu() for name, values in self.radial.per_walker().items()
        }
        estimates = self.metric.compute()
        if self.proton_density is not None:
            base_error = self.proton_density.base.free_energy_error / self.cell.num_atoms
            estimates = with_base_error(estimates, base_error, KELVIN_TO_HARTREE * self.temperature_kelvin)
        self.summary = Summary(
            self._system(),
            int(self.trained_steps),
            estimates,
            self.metric.mean_diagnostics(),
            self.radial.result(per_walker),
        )

    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> Any:
        """Both blocks in one optimizer."""
        flow = None if self.proton_density is None else self.proton_density
        return self.optimizer_settings.configure(self.wavefunction, flow)

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _system(self) -> dict[str, Any]:
        fixed = self.proton_density is None
        system = {"num_atoms": self.cell.num_atoms, "rs": self.cell.rs, "protons": "fixed" if fixed else "sampled"}
        return system | ({} if fixed else {"temperature_kelvin": self.temperature_kelvin})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down which system the parameters belong to, and what trained them."""
        checkpoint["system"] = self._system()
        checkpoint["optimizer"] = type(self.optimizer_settings).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the parameters of another system, and to go on training with another optimizer.

        Raises:
            ValueError: naming the key and both values.
        """
        saved = checkpoint.get("system", {})
        for key, value in self._system().items():
            if saved.get(key) != value:
                raise ValueError(
                    f"system.{key} = {value} but the checkpoint was made with {saved.get(key)}; "
                    f"set system.{key}={saved.get(key)} or choose the checkpoint of this system"
                )
        own, other = type(self.optimizer_settings).__name__, checkpoint.get("optimizer")
        if self._trainer is not None and self.trainer.state.fn == "fit" and other not in (None, own):
            raise ValueError(
                f"optimizer = {own} but the checkpoint was trained with {other}; resume with that, or start a new run"
            )


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())

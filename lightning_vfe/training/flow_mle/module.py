"""Train the flow by maximum likelihood on given configurations: the other side of the variational free energy."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import GaussianProposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.training.flow_mle.datamodule import ConfigurationDataModule
from lightning_vfe.training.flow_mle.model_samples import model_samples
from lightning_vfe.training.run.step_bar import tracked
from lightning_vfe.training.torch_optimizer import (
    TorchOptimizer,
    adamw,
    check_takes_validation_loss,
    step_plateau,
)


class FlowMaximumLikelihood(L.LightningModule):
    r"""Maximises <ln p(x)> over data x, with ln p(x) = ln p_base(z) + ln|det dz/dx|, z = flow(x).

    That minimises KL(data || p) = -S_data - <ln p>_data, where the variational free energy minimises
    KL(p || Boltzmann) = (F_p - F) / kT. `test` measures both: -<ln p> on held-out data always, the two divergences
    where the distribution of the data is known.

    A map that folds (det dz/dx < 0 somewhere) has the normalised density p / c with c = 1 / E_p[sign det] > 1, and
    likelihood alone would reward folding. Since the integral of p sign(det) is the same for all maps, the gradient of
    ln c is E_p[(1 - sign) d ln p]: the loss has this term, on chains that follow p. It vanishes, noise included, for
    the sound maps. `test` looks for folds on the data and on samples of p.

    Args:
        system: the particles.
        strata: with one state point.
        proton_density: p(x), base and flow.
        target: the Boltzmann distribution that the data follow, with its ln Z; None if it is not known.
        optimizer: settings of the optimizer; None takes AdamW at a rate of 3e-3.
        seed: of the chains on p(x).
        num_walkers: of these chains.
        chain_steps: moves of these chains for every training step.
        equilibration_sweeps: of 20 moves each in `test`, before they are measured; only for a base that is not drawn
            from independently.
        test_sweeps: that are measured, of num_walkers samples of p(x) each.

    Raises:
        ValueError: several state points, or a number is not positive.
    """

    trained_steps: Tensor

    def __init__(
        self,
        system: System,
        strata: Strata,
        proton_density: ProtonDensity,
        target: BoltzmannBase | None = None,
        optimizer: TorchOptimizer | None = None,
        seed: int = 42,
        num_walkers: int = 64,
        chain_steps: int = 2,
        equilibration_sweeps: int = 30,
        test_sweeps: int = 60,
    ) -> None:
        super().__init__()
        counts = {"num_walkers": num_walkers, "equilibration_sweeps": equilibration_sweeps, "test_sweeps": test_sweeps}
        for name, value in (counts | {"chain_steps": chain_steps + 1}).items():
            if value < 2:
                raise SettingError(name, value, "is too small", "the default is a good start")
        self.system, self.point = system, strata.single
        self.cell = self.point.cell(system.num_atoms)
        self.proton_density, self.target = proton_density, target
        self.optimizer_settings = optimizer or adamw(3e-3)
        check_takes_validation_loss(self.optimizer_settings)
        self.seed, self.num_walkers, self.chain_steps = seed, num_walkers, chain_steps
        self.equilibration_sweeps, self.test_sweeps = equilibration_sweeps, test_sweeps
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))
        self.estimates: dict[str, Estimate] = {}
        self.negative_determinants = 0.0
        self.chains: Chains | None = None
        self._saved_chains: dict[str, Any] | None = None
        self._seen: list[dict[str, Tensor]] = []

    def description(self) -> dict[str, str]:
        """What the banner says."""
        trained = sum(p.numel() for p in self.proton_density.flow.parameters())
        base = type(self.proton_density.base).__name__
        return {"model": f"{base} and a flow of {trained} parameters at {self.point}"}

    # --- training ---------------------------------------------------------------------------------------------------

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """-<ln p> per atom, and the term that opens folds."""
        self.chains = self.chains or self._new_chains()
        self.chains.place(self.chains.state.positions)
        self.chains.advance(self.chain_steps, adapt=True)
        loss = -self.log_prob(batch).mean() / self.cell.num_atoms
        self.log("train_loss", loss, batch_size=len(batch), sync_dist=True)
        loss = loss + self.unfolding(self.chains.state.positions)
        self.log("negative_determinants", self.negative_determinants, batch_size=len(batch))
        return loss

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) (W,) of protons (W, N, 3) in bohr."""
        return self.proton_density.log_prob(x, self._states(x))

    def _states(self, x: Tensor) -> WalkerStates:
        """The state point, for each of the protons (W, N, 3)."""
        return WalkerStates.at(self.point.rs, self.point.temperature_kelvin, x.new_zeros(len(x), 3), like=x)

    def unfolding(self, walkers: Tensor) -> Tensor:
        """A number with the gradient of ln c per atom, from samples of p(x) (W, N, 3); no gradient without folds."""
        with torch.no_grad():
            folded = self.proton_density.evaluate(walkers, self._states(walkers)).sign_det_dzdx <= 0
        self.negative_determinants = float(folded.double().mean())
        if not bool(folded.any()):
            return walkers.new_zeros(())
        return 2.0 * self.log_prob(walkers[folded]).sum() / (len(walkers) * self.cell.num_atoms)

    def _new_chains(self) -> Chains:
        """Chains that begin at training configurations, or where those of the checkpoint stood."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, ConfigurationDataModule)
        start = datamodule.part(0).to(self.device)
        start = start[torch.arange(self.num_walkers, device=self.device) % len(start)]
        random = WalkerRandom(range(1), self.seed, self.device)
        chains = Chains(self.log_prob, self.cell, start, GaussianProposal(), 0.1, random)
        if self._saved_chains is not None:
            chains.load_state_dict(self._saved_chains)
        return chains

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, counted before callbacks save."""
        super().optimizer_step(*args, **kwargs)
        self.trained_steps += 1

    def configure_optimizers(self) -> Any:
        """The optimizer of the flow."""
        return self.optimizer_settings.configure(self.proton_density, validation_loss="validation_loss")

    # --- measuring --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring."""
        self._seen = []

    on_test_epoch_start = on_validation_epoch_start

    @override
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """-ln p of held-out configurations, and their divergence from the target."""
        found = self.samples(batch)
        self._seen.append(found)
        if self.trainer.state.fn == "fit":
            self.log("validation_loss", found["negative_log_likelihood"].mean(), batch_size=len(batch), prog_bar=True)

    test_step = validation_step

    @torch.no_grad()
    def samples(self, x: Tensor) -> dict[str, Tensor]:
        """Per atom, for protons x (W, N, 3): -ln p, and where the target is known ln p_target - ln p. # (W,) each"""
        terms = self.proton_density.evaluate(x, self._states(x))
        values = {
            "negative_log_likelihood": -terms.log_prob / self.cell.num_atoms,
            "negative_determinants": (terms.sign_det_dzdx <= 0).to(x.dtype),
        }
        if self.target is not None:
            excess = self.target.log_prob(x) - terms.log_prob
            values["kl_data_model"] = excess / self.cell.num_atoms
        return values

    def on_validation_epoch_end(self) -> None:
        """Estimates over the held-out configurations, which count as independent."""
        names = self._seen[0] if self._seen else {}
        columns = {name: torch.cat([batch[name] for batch in self._seen]) for name in names}
        self.negative_determinants = float(columns.pop("negative_determinants").mean()) if columns else 0.0
        # one step of as many chains: the error is that of their mean
        self.estimates = {name: estimate(column.unsqueeze(0).cpu()) for name, column in columns.items()}
        if self.trainer.state.fn == "fit":
            step_plateau(self, float(self.trainer.callback_metrics["validation_loss"]))
        if "kl_data_model" in self.estimates:
            self.estimates["kl_data_model"] = self._with_error_of_log_z(self.estimates["kl_data_model"])

    def on_test_epoch_end(self) -> None:
        """The same, and the divergence of p from the target on samples of p."""
        self.on_validation_epoch_end()
        self.estimates |= self._on_model_samples()

    @torch.no_grad()
    def _on_model_samples(self) -> dict[str, Estimate]:
        r"""On samples of p(x): folds, and F_p = <E + kT ln p>_p per atom, KL(p || Boltzmann) = (F_p - F) / kT."""
        per_atom, kT = 1.0 / self.cell.num_atoms, self.point.kT
        series, negative = [], []
        sweeps, shown = (self.equilibration_sweeps, self.test_sweeps), partial(tracked, self._trainer)
        samples = model_samples(self.proton_density, self._new_chains(), self._states, *sweeps, self.seed, shown)
        for state in samples:
            terms = self.proton_density.evaluate(state.positions, self._states(state.positions))
            negative.append((terms.sign_det_dzdx <= 0).double().mean())
            if self.target is not None:
                series.append((self.target.energy(state.positions) + kT * state.log_prob) * per_atom)
        self.negative_determinants = max(self.negative_determinants, float(torch.stack(negative).mean()))
        if self.target is None:
            return {}
        model = torch.stack(series).cpu()  # (sweeps, W)
        one = self._states(torch.zeros(1, 1))[0]
        free_energy, error = (
            float(function(one)) * per_atom for function in (self.target.free_energy, self.target.free_energy_error)
        )
        return {
            "model_free_energy": estimate(model),
            "data_free_energy": Estimate(free_energy, error, 1.0, math.nan, 1.0),
            "kl_model_data": self._with_error_of_log_z(estimate((model - free_energy) / kT)),
        }

    def _with_error_of_log_z(self, divergence: Estimate) -> Estimate:
        """A divergence per atom, with the error of the target's ln Z in its own."""
        assert self.target is not None
        error = math.hypot(divergence.error, self.target.log_z_error / self.cell.num_atoms)
        return divergence._replace(error=error)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down which system the flow belongs to."""
        point = {"rs": self.point.rs, "temperature_kelvin": self.point.temperature_kelvin}
        checkpoint["system"] = {"num_atoms": self.cell.num_atoms} | point
        if self.chains is not None:
            checkpoint["chains"] = self.chains.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the chains until their device is known."""
        self._saved_chains = checkpoint.get("chains")

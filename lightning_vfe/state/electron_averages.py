"""E_psi(x) and forces of given proton configurations, by Monte Carlo over their electrons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_vfe.models.wavefunction.paired import log_psi_of_walkers
from lightning_vfe.physics.electron_forces import hellmann_feynman_forces
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.sampler import Sampler
from lightning_vfe.state.variational_state import VariationalState


@dataclass(frozen=True)
class ElectronWalkers:
    """Electrons of one configuration after the last sweep: samples of |psi_x(r)|^2 at each twist.

    Attributes:
        twists: fractional, k = 2 pi twist / L.  # (T, 3)
        electrons: bohr, in any image; the first half has spin up.  # (T, B, N, 3)
        log_psi: ln psi_x(r), complex.  # (T, B)
        local_energy: E_loc of the whole cell in Ha, complex.  # (T, B)
    """

    twists: Tensor
    electrons: Tensor
    log_psi: Tensor
    local_energy: Tensor


@dataclass(frozen=True)
class ElectronAverages:
    """Averages over |psi_x(r)|^2 and the twists for one configuration, whole cell.

    Attributes:
        energy: E_psi(x) in Ha; None where a local energy is not finite.
        noise: variance of this energy in Ha^2, without bias, from the scatter of the electron walkers at each twist.
        virial: 2 K + V in Ha.
        forces: Hellmann-Feynman forces in Ha/bohr (N, 3), see `hellmann_feynman_forces`; None if not asked for.
        force_errors: their standard errors, from the scatter of the electron walkers at each twist.
        walkers: the electrons after the last sweep; None if not asked for.
    """

    energy: Estimate | None
    noise: float
    virial: float
    forces: Tensor | None = None
    force_errors: Tensor | None = None
    walkers: ElectronWalkers | None = None


@dataclass(frozen=True)
class ElectronMonteCarlo:
    """Electrons in the field of fixed protons, all configurations of one state point as one batch of walkers.

    Args:
        system: the particles.
        strata: the state point and its twists.
        wavefunction: psi_x(r).
        sampler: how electrons move.
        num_electron_walkers: B of every configuration and twist, at least 2.
        equilibration_sweeps: sweeps that adapt the width and are discarded.
        num_sweeps: measured sweeps, at least 2.
        seed: of the electrons.
        forces: average the forces, too.
        keep_walkers: keep the electrons of the last sweep.
        chain_precision: of ln|psi|^2 in the moves, see `VariationalState`.
    """

    system: System
    strata: Strata
    wavefunction: nn.Module
    sampler: Sampler
    num_electron_walkers: int
    equilibration_sweeps: int
    num_sweeps: int
    seed: int
    forces: bool = False
    keep_walkers: bool = False
    chain_precision: str | None = None

    @torch.no_grad()
    def averages(self, protons: Tensor, stream: int = 0) -> list[ElectronAverages]:
        """Averages of protons (C, N, 3) in bohr; `stream` tells the random numbers of batches apart."""
        num_twists, count, rs = len(self.strata), len(protons), self.strata.single.rs
        repeated = protons.repeat_interleave(num_twists, dim=0) / rs  # walker c T + t has twist t
        state = VariationalState(
            self.system,
            self.strata,
            self.wavefunction,
            None,
            self.sampler,
            num_proton_walkers=len(repeated),
            num_electron_walkers=self.num_electron_walkers,
            num_groups=1,
            equilibration_sweeps=self.equilibration_sweeps,
            chain_precision=self.chain_precision,
        )
        state.put(repeated, torch.arange(num_twists).repeat(count), WalkerRandom([stream], self.seed, protons.device))
        energies, virials, pulls = [], [], protons.new_zeros(())
        for _ in range(self.num_sweeps):
            batch = state.batch()
            terms = state.energies(batch).electronic
            energies.append(terms.total.real)
            virials.append(energies[-1] + terms.kinetic.real)  # 2 K + V
            if self.forces:
                forces = hellmann_feynman_forces(state.ewald, batch.protons, batch.electrons, batch.states.rs)
                pulls = pulls + forces / self.num_sweeps
        shape = (self.num_sweeps, count, num_twists * self.num_electron_walkers)
        energy, virial = (torch.stack(each).double().reshape(shape) for each in (energies, virials))
        found = list(self._each(energy, virial.mean((0, 2)), pulls))
        if not self.keep_walkers:
            return found
        log_psi = log_psi_of_walkers(self.wavefunction, batch.protons, batch.electrons, batch.states)
        last = (batch.states.twist, batch.electrons, log_psi, terms.total)
        parts = [values.detach().unflatten(0, (count, num_twists)) for values in last]
        return [replace(each, walkers=ElectronWalkers(*own)) for each, *own in zip(found, *parts, strict=True)]

    def _each(self, energy: Tensor, virial: Tensor, pulls: Tensor) -> Iterator[ElectronAverages]:
        """From energies (steps, C, T B) and forces (C T, B, N, 3), of one configuration after the other."""
        num_twists = len(self.strata)
        stratum = torch.arange(num_twists).repeat_interleave(self.num_electron_walkers)
        weights = self.strata.weights(stratum)
        share = self.strata.twists.weights.to(energy) / self.strata.twists.weights.sum().to(energy)
        for number, series in enumerate(energy.unbind(1)):
            finite = bool(series.isfinite().all())
            found = estimate(series, stratum.tolist(), weights) if finite else None
            scatter = series.mean(0).unflatten(0, (num_twists, self.num_electron_walkers)).var(dim=1)
            noise = float((share.square() * scatter).sum()) / self.num_electron_walkers
            if not self.forces:
                yield ElectronAverages(found, noise, float(virial[number]))
                continue
            own = pulls[number * num_twists : (number + 1) * num_twists].double()  # (T, B, N, 3)
            variance = own.var(dim=1) / self.num_electron_walkers
            mean = torch.einsum("t,tnd->nd", share, own.mean(dim=1))
            error = torch.einsum("t,tnd->nd", share.square(), variance).sqrt()
            yield ElectronAverages(found, noise, float(virial[number]), mean, error)

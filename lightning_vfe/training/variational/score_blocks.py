"""What the natural gradient is made of: the scores of a batch with the clipped energies that weigh them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.optim.solve import ScoreBlock
from lightning_vfe.state.batch import Batch
from lightning_vfe.training.variational.objective import Gather, Groups, flow_residuals, wavefunction_residuals


@torch.no_grad()
def wavefunction_block(
    wavefunction: nn.Module,
    batch: Batch,
    local_energy: Tensor,
    walkers: Tensor,
    groups: Groups,
    same_protons: Groups | None,
    scale: Tensor,
    clip_width: float,
    gather: Gather,
    chunk_size: int | None,
) -> ScoreBlock:
    """d ln psi / d theta and E_loc - <E_loc>_x of all electron walkers.

    Args:
        wavefunction: psi_x(r).
        batch: walkers of this process.
        local_energy: complex, Ha. # (W, B)
        walkers: number of each proton walker over all processes. # (W,)
        groups: the strata, within which energies are clipped.
        same_protons: see wavefunction_residuals.
        scale: factor of the energies of each walker. # (W,)
        clip_width: see clip_deviation.
        gather: over the processes.
        chunk_size: electron walkers whose derivatives are taken at once; None for what the free memory allows.
    """
    residuals = wavefunction_residuals(local_energy, clip_width, gather, groups, same_protons) * scale.unsqueeze(1)
    scores = wavefunction_scores(wavefunction, batch.protons, batch.electrons, batch.states, chunk_size)
    num_electron_walkers = local_energy.shape[1]
    compared = walkers if same_protons is None else same_protons.label
    each, weights = (values.repeat_interleave(num_electron_walkers) for values in (compared, groups.weight))
    return ScoreBlock(scores.flatten(0, 1), torch.view_as_real(residuals).flatten(0, 1), each, weights)


@torch.no_grad()
def flow_block(
    density: ProtonDensity,
    batch: Batch,
    energy: Tensor,
    groups: Groups,
    scale: Tensor,
    clip_width: float,
    gather: Gather,
    chunk_size: int | None,
) -> ScoreBlock:
    """d ln p / d phi and kT ln p + E - F of all proton walkers.

    Args:
        density: p(x).
        batch: walkers of this process.
        energy: mean local energy of each proton walker, Ha. # (W,)
        groups: walkers with one F.
        scale: factor of the energies of each walker. # (W,)
        clip_width: see clip_deviation.
        gather: over the processes.
        chunk_size: proton walkers whose derivatives are taken at once; None for what the free memory allows.
    """
    log_prob, scores = density.scores(batch.protons, batch.states, chunk_size)
    residuals = flow_residuals(log_prob, energy, batch.states.kT, clip_width, gather, groups) * scale
    return ScoreBlock(scores.unsqueeze(1), residuals.unsqueeze(1), groups.label, groups.weight)

"""What the natural gradient is made of: the scores of a batch with the clipped energies that weigh them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.optim.solve import ScoreBlock
from lightning_vfe.training.batch import Batch
from lightning_vfe.training.objective import Gather, flow_residuals, wavefunction_residuals


@torch.no_grad()
def wavefunction_block(
    wavefunction: GeminalWavefunction,
    batch: Batch,
    local_energy: Tensor,
    groups: Tensor,
    same_protons: Tensor | None,
    clip_width: float,
    gather: Gather,
    chunk_size: int,
) -> ScoreBlock:
    """d ln psi / d theta and E_loc - <E_loc>_x of all electron walkers.

    Args:
        wavefunction: psi_x(r).
        batch: walkers of this process.
        local_energy: complex, Ha. # (W, B)
        groups: number of each proton walker, or of its twist where the protons are fixed, over all processes. # (W,)
        same_protons, clip_width, gather: see wavefunction_residuals.
        chunk_size: electron walkers whose derivatives are taken at once.
    """
    residuals = wavefunction_residuals(local_energy, clip_width, gather, same_protons)
    scores = wavefunction_scores(wavefunction, batch.protons, batch.electrons, batch.twists, chunk_size)
    each = groups.repeat_interleave(local_energy.shape[1])
    return ScoreBlock(scores.flatten(0, 1), torch.view_as_real(residuals).flatten(0, 1), each)


@torch.no_grad()
def flow_block(
    density: ProtonDensity,
    protons: Tensor,
    energy: Tensor,
    kT: float,
    clip_width: float,
    gather: Gather,
    chunk_size: int,
) -> ScoreBlock:
    """d ln p / d phi and kT ln p + E - F of all proton walkers, in one group.

    Args:
        density: p(x).
        protons: bohr. # (W, N, 3)
        energy: mean local energy of each proton walker, Ha. # (W,)
        kT, clip_width, gather: see flow_residuals.
        chunk_size: proton walkers whose derivatives are taken at once.
    """
    log_prob, scores = density.scores(protons, chunk_size)
    residuals = flow_residuals(log_prob, energy, kT, clip_width, gather)
    groups = torch.zeros(len(protons), dtype=torch.int64, device=protons.device)
    return ScoreBlock(scores.unsqueeze(1), residuals.unsqueeze(1), groups)

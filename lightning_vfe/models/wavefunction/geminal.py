"""The neural geminal: a learned complex pair function of an up and a down electron, and its determinants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.forward_laplacian import bilinear_scores, opposite_spin_scores

START = 0.01
"""Size of phi - 1 at the start."""


class NeuralGeminal(nn.Module):
    r"""phi_ij = 1 + h_i^T W h_j + w . (g_ij + g_ji) / 2, complex, for up electron i and down electron j.

    There is one for each determinant. h are the single streams, g the stream of the electron pairs. W is symmetric, so
    that each pair is a singlet: psi does not change when all spins are swapped. It starts close to 1.
    """

    def __init__(self, num_determinants: int, single_width: int, pair_width: int) -> None:
        super().__init__()
        # Last axis: real and imaginary part. Small numbers: the determinant starts as that of the envelope.
        bilinear = torch.randn(num_determinants, single_width, single_width, 2)
        self.bilinear = nn.Parameter(START / single_width * bilinear)
        self.pair = nn.Parameter(START / pair_width * torch.randn(num_determinants, pair_width, 2))

    def forward(self, up: Tensor, down: Tensor, pairs: Tensor) -> Tensor:
        """phi (..., K, N/2, N/2) from up, down (..., N/2, single) and all electron pairs (..., N, N, pair)."""
        num_determinants = len(self.bilinear)
        # Real and imaginary parts of all determinants at once.
        scores = opposite_spin_scores(pairs, self.pair.movedim(-1, 0).flatten(0, 1))
        symmetric = 0.5 * (self.bilinear + self.bilinear.transpose(1, 2))
        both = bilinear_scores(up, down, symmetric.movedim(-1, 0).flatten(0, 1)) + 0.5 * scores  # (..., 2 K, N/2, N/2)
        return torch.complex(1.0 + both[..., :num_determinants, :, :], both[..., num_determinants:, :, :])


def log_sum_of_determinants(matrices: Tensor) -> Tensor:
    """ln sum_K det A_K, complex (...), of complex matrices (..., K, n, n); the imaginary part is the phase."""
    phase, log_abs = torch.linalg.slogdet(matrices)
    largest = log_abs.detach().amax(-1, keepdim=True)
    total = (phase * torch.exp(log_abs - largest)).sum(-1)
    log_sum: Tensor = torch.log(total) + largest.squeeze(-1)
    return log_sum

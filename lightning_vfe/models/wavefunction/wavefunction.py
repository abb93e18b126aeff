"""psi_x(r) = e^J det G: the wavefunction composed of its parts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.models.wavefunction.backbone import Backbone, near_zero
from lightning_vfe.models.wavefunction.features import pair_geometry
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal, log_sum_of_determinants
from lightning_vfe.models.wavefunction.jastrow import CuspJastrow
from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope
from lightning_vfe.models.wavefunction.spins import check_spins_and_sizes, spin_products
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System


class FixedProtons(NamedTuple):
    """What ln psi needs of protons and twist alone: computed once for all electrons in their field."""

    proton_pairs: list[Tensor]
    """Streams of the proton pairs, one of every layer but the last, zero for a proton itself. # (..., N, N, pair)"""
    pairing: Tensor
    """F of the envelope: complex of plane waves, real of atomic orbitals. # (..., K, k, k)"""

    def to(self, dtype: torch.dtype) -> FixedProtons:
        """The same in another real precision."""
        of_pairing = dtype.to_complex() if self.pairing.is_complex() else dtype
        return FixedProtons([stream.to(dtype) for stream in self.proton_pairs], self.pairing.to(of_pairing))


class GeminalWavefunction(nn.Module):
    r"""ln psi_x(r) = J + ln sum_K det[Phi_ij phi_ij]: cusp and neural Jastrow, plane-wave envelope, neural geminal.

    Complex, under twisted boundary conditions: psi gains the phase exp(2 pi i twist_d) when one electron moves by L
    along d. Antisymmetric in the up and in the down electrons, symmetric in the protons and under a swap of all spins.
    A determinant of pair functions holds the atomic, the molecular and the paired state (Xie et al., PRL 131, 126501
    (2023), eq. 4 and supplement). Electrons 0..N/2-1 are up, the others down.

    One network serves all densities and twists. The ranges of the Jastrow factor, the backflow and the envelope scale
    with rs / rs_0. What the density changes beyond that enters through the pairs' distances in bohr, and through
    ln(rs / rs_0) with weights that start at zero.

    Args:
        system: nuclei and electrons; as many up as down.
        reference: state point whose rs is rs_0.
        num_determinants: K.
        num_layers: layers of the streams.
        single_width: features of a particle.
        pair_width: features of a pair.
        num_plane_waves: least number of plane waves of the envelope; None takes N + 10.
        open_shell: "s" or "d", how the pairs of a degenerate open shell are put together: see PlaneWaveEnvelope.

    Raises:
        ValueError: different numbers of up and down electrons, a size below 1, or an open shell that is not possible.
    """

    carries_derivatives = True
    """All operations have forward rules: kinetic energies take one pass."""
    spin_product: Tensor
    reference_rs: Tensor

    def __init__(
        self,
        system: System,
        reference: StatePoint,
        num_determinants: int = 1,
        num_layers: int = 3,
        single_width: int = 32,
        pair_width: int = 16,
        num_plane_waves: int | None = None,
        open_shell: str = "s",
    ) -> None:
        super().__init__()
        sizes = {"num_layers": num_layers, "single_width": single_width, "pair_width": pair_width}
        check_spins_and_sizes(system, num_determinants=num_determinants, **sizes)
        self.system = system
        self.unit_length = system.cell.length
        # Part of the checkpoint: the parameters mean what they mean at this density.
        self.register_buffer("reference_rs", torch.tensor(float(reference.rs)))
        self.jastrow = CuspJastrow(system, reference.rs)
        self.backbone = Backbone(num_layers, single_width, pair_width)
        self.envelope = PlaneWaveEnvelope(system, reference.rs, num_determinants, num_plane_waves, open_shell)
        self.geminal = NeuralGeminal(num_determinants, single_width, pair_width)
        self.backflow = near_zero(single_width, 3)
        self.neural_jastrow = near_zero(single_width, 1)
        self.register_buffer("spin_product", spin_products(system), persistent=False)

    def prepare(self, protons: Tensor, states: WalkerStates, pairing: Tensor | None = None) -> FixedProtons:
        """What log_psi computes of protons (..., N, 3) in bohr and their state points (...) alone.

        `pairing` is F of the envelope (..., K, k, k), for callers that have it; left out, it is computed here.
        """
        pp = pair_geometry(self.unit_length * states.rs, protons, protons, same_particles=True)
        if pairing is None:
            pairing = self.envelope.pairing(protons, states, states.rs / self.reference_rs)
        return FixedProtons(self.backbone.proton_pairs(pp), pairing)

    def log_psi(
        self,
        protons: Tensor,
        electrons: Tensor,
        states: WalkerStates,
        fixed: FixedProtons | None = None,
        pairing: Tensor | None = None,
    ) -> Tensor:
        """ln psi (...), complex. Positions (..., N, 3) in bohr; leading dimensions, those of states too, broadcast.

        `fixed` is `prepare(protons, states)`, for callers that move the electrons only; left out, it is computed here,
        with `pairing` if that is given.
        """
        up = self.system.num_down
        proton_pairs, pairing = self.prepare(protons, states, pairing) if fixed is None else fixed
        length, rs_ratio = self.unit_length * states.rs, states.rs / self.reference_rs
        ee = pair_geometry(length, electrons, electrons, same_particles=True)
        ep = pair_geometry(length, electrons, protons)
        single, pairs = self.backbone(ee, ep, proton_pairs, self.spin_product, states.twist, torch.log(rs_ratio))
        z = electrons + self.backflow(single) * rs_ratio[..., None, None]
        jastrow = self.jastrow(ep.distance, ee.distance, rs_ratio) + self.neural_jastrow(single).sum((-2, -1))
        envelope = self.envelope.pair_functions(z[..., :up, :], z[..., up:, :], states, pairing)
        geminal = self.geminal(single[..., :up, :], single[..., up:, :], pairs)
        log_psi: Tensor = jastrow + log_sum_of_determinants(envelope * geminal)
        return log_psi

    def forward(
        self,
        protons: Tensor,
        electrons: Tensor,
        states: WalkerStates,
        fixed: FixedProtons | None = None,
        pairing: Tensor | None = None,
    ) -> Tensor:
        """See `log_psi`."""
        return self.log_psi(protons, electrons, states, fixed, pairing)


def log_psi_of_walkers(wavefunction: nn.Module, protons: Tensor, electrons: Tensor, states: WalkerStates) -> Tensor:
    """ln psi of B electron walkers for each of W proton walkers, complex.  # (W, B)

    Args:
        wavefunction: psi_x(r).
        protons: in bohr.  # (W, N, 3)
        electrons: in bohr.  # (W, B, N, 3)
        states: state point and twist of every proton walker.  # (W,)
    """
    log_psi: Tensor = wavefunction(protons.unsqueeze(1), electrons, states.unsqueeze(1))
    return log_psi

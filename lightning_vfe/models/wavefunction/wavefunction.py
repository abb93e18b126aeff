"""psi_x(r) = e^J det G with plane waves: the wavefunction of dense hydrogen."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_vfe.models.wavefunction.backbone import near_zero
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal
from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope
from lightning_vfe.models.wavefunction.paired import PairedWavefunction
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System


class GeminalWavefunction(PairedWavefunction):
    r"""ln psi_x(r) = J + ln sum_K det[Phi_ij phi_ij]: cusp and neural Jastrow, plane-wave envelope, neural geminal.

    Complex, under twisted boundary conditions: psi gains the phase exp(2 pi i twist_d) when one electron moves by L
    along d. Antisymmetric in the up and in the down electrons, symmetric in the protons and under a swap of all spins.
    A determinant of pair functions contains the atomic, the molecular and the paired state (Xie et al., PRL 131, 126501
    (2023), eq. 4 and supplement). Electrons 0..N/2-1 are up, the others down.

    One network serves all densities and twists. The ranges of the Jastrow factor, the backflow and the envelope scale
    with rs / rs_0. The network also depends on the density through the distances of pairs in bohr, and through
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
        super().__init__(system, reference, reference.rs, num_determinants, num_layers, single_width, pair_width)
        self.envelope = PlaneWaveEnvelope(system, reference.rs, num_determinants, num_plane_waves, open_shell)
        self.geminal = NeuralGeminal(num_determinants, single_width, pair_width)
        self.backflow = near_zero(single_width, 3)
        self.neural_jastrow = near_zero(single_width, 1)

    @override
    def cusp_scale(self, rs_ratio: Tensor) -> Tensor:
        """rs / rs_0: the ranges of the cusps scale with the mean distance of the particles."""
        return rs_ratio

    @override
    def pairing(self, protons: Tensor, distance: Tensor, states: WalkerStates) -> Tensor:
        """F of the plane waves, complex."""
        return self.envelope.pairing(protons, states, states.rs / self.reference_rs)

    @override
    def pair_functions(
        self, electrons: Tensor, single: Tensor, distance: Tensor, states: WalkerStates, pairing: Tensor
    ) -> Tensor:
        """Pairs of plane waves at the backflow positions z."""
        up, rs_ratio = self.system.num_down, states.rs / self.reference_rs
        z = electrons + self.backflow(single) * rs_ratio[..., None, None]
        return self.envelope.pair_functions(z[..., :up, :], z[..., up:, :], states, pairing)

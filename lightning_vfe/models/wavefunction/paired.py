"""psi_x(r) = e^J det G: what wavefunctions with different pair functions of the envelope have in common."""

from __future__ import annotations

import abc
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.models.wavefunction.backbone import Backbone
from lightning_vfe.models.wavefunction.features import pair_geometry
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal, log_sum_of_determinants
from lightning_vfe.models.wavefunction.jastrow import CuspJastrow
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


class PairedWavefunction(nn.Module, abc.ABC):
    r"""ln psi_x(r) = J + ln sum_K det[Phi_ij phi_ij], with the pair functions Phi of a subclass.

    J holds the cusps and a neural part, phi_ij is the neural geminal of up electron i and down electron j, and both see
    the streams of `Backbone`. Electrons 0..N/2-1 are up, the others down.

    A subclass has the parameters of Phi, and after them `geminal` and `neural_jastrow`: checkpoints keep this order.

    Args:
        system: nuclei and electrons; as many up as down.
        reference: state point whose rs is rs_0.
        cusp_range: of the cusps in bohr, at the start and at rs_0.
        num_determinants: K.
        num_layers: layers of the streams.
        single_width: features of a particle.
        pair_width: features of a pair.

    Raises:
        SettingError: different numbers of up and down electrons, or a size below 1.
    """

    carries_derivatives = True
    """All operations have forward rules: kinetic energies take one pass."""
    geminal: NeuralGeminal
    neural_jastrow: nn.Linear
    spin_product: Tensor
    reference_rs: Tensor

    def __init__(
        self,
        system: System,
        reference: StatePoint,
        cusp_range: float,
        num_determinants: int,
        num_layers: int,
        single_width: int,
        pair_width: int,
    ) -> None:
        super().__init__()
        sizes = {"num_layers": num_layers, "single_width": single_width, "pair_width": pair_width}
        check_spins_and_sizes(system, num_determinants=num_determinants, **sizes)
        self.system = system
        self.unit_length = system.cell.length
        # Part of the checkpoint: the parameters mean what they mean at this density.
        self.register_buffer("reference_rs", torch.tensor(float(reference.rs)))
        self.jastrow = CuspJastrow(system, cusp_range)
        self.backbone = Backbone(num_layers, single_width, pair_width)
        self.register_buffer("spin_product", spin_products(system), persistent=False)

    @abc.abstractmethod
    def cusp_scale(self, rs_ratio: Tensor) -> Tensor:
        """How the ranges of the cusps grow with rs / rs_0, from one.  # (...) -> (...)"""

    @abc.abstractmethod
    def pairing(self, protons: Tensor, distance: Tensor, states: WalkerStates) -> Tensor:
        """F (..., K, k, k) of protons (..., N, 3) in bohr, their distances (..., N, N), and state points (...)."""

    @abc.abstractmethod
    def pair_functions(
        self, electrons: Tensor, single: Tensor, distance: Tensor, states: WalkerStates, pairing: Tensor
    ) -> Tensor:
        """Phi (..., K, N/2, N/2).

        Args:
            electrons: bohr.  # (..., N, 3)
            single: their streams.  # (..., N, single)
            distance: of electrons and protons, bohr.  # (..., N, N)
            states: state points and twists.  # (...)
            pairing: F.  # (..., K, k, k)
        """

    def phase(self, electrons: Tensor, states: WalkerStates) -> Tensor | None:
        """Phase of psi (...) beside that of the determinants; None where Phi has all of it."""
        del electrons, states
        return None

    def prepare(self, protons: Tensor, states: WalkerStates, pairing: Tensor | None = None) -> FixedProtons:
        """What log_psi computes of protons (..., N, 3) in bohr and their state points (...) alone.

        `pairing` is F of the envelope (..., K, k, k), for callers that have it; left out, it is computed here.
        """
        pp = pair_geometry(self.unit_length * states.rs, protons, protons, same_particles=True)
        if pairing is None:
            pairing = self.pairing(protons, pp.distance, states)
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
        envelope = self.pair_functions(electrons, single, ep.distance, states, pairing)
        jastrow = self.jastrow(ep.distance, ee.distance, self.cusp_scale(rs_ratio))
        jastrow = jastrow + self.neural_jastrow(single).sum((-2, -1))
        geminal = self.geminal(single[..., :up, :], single[..., up:, :], pairs)
        phase = self.phase(electrons, states)
        exponent = jastrow if phase is None else torch.complex(jastrow, phase)
        log_psi: Tensor = exponent + log_sum_of_determinants(envelope * geminal)
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

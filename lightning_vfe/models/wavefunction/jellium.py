"""psi(r) = e^J det G of electrons alone: the wavefunction of jellium, without protons."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_vfe.errors import SettingError
from lightning_vfe.forward_laplacian import block_means, messages_by_spin, paired_plane_waves
from lightning_vfe.models.wavefunction.backbone import NUM_TWIST_FEATURES, PairStream, Update, near_zero
from lightning_vfe.models.wavefunction.features import NUM_PAIR_FEATURES, PairGeometry, pair_geometry
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal, log_sum_of_determinants
from lightning_vfe.models.wavefunction.jastrow import PlasmonJastrow
from lightning_vfe.models.wavefunction.spins import check_spins_and_sizes, spin_products
from lightning_vfe.physics.cell import integer_vectors
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System

SAME_LEVEL = 1e-4
"""Plane waves whose |n|^2 differ by less belong to one shell."""


class JelliumWavefunction(nn.Module):
    r"""ln psi(r) = J + ln sum_K det[Phi_ij phi_ij] of N electrons in a uniform positive background.

        Phi_ij = sum_k exp[i (k + k_twist) . z_i] exp[i (k' + k_twist) . z_j],    up electron i, down j.

    z are the backflow positions. k and its partner k' run over the N/2 plane waves of lowest |k + k_twist|, so that
    det Phi is the product of the two Slater determinants of free electrons. In lexicographic order the partner of the
    first wave is the last one, and so on: at Gamma k' = -k in closed shells (N = 2, 14, 38, 54, 66), and |psi| does not
    change when all electrons move together. Otherwise the sums k + k' differ a little. phi_ij is the neural geminal of
    the hydrogen wavefunction (`NeuralGeminal`), and starts close to 1. J contains the cusps, the plasmons
    (`PlasmonJastrow`) and a neural part. The streams are those of `Backbone` without protons. psi gains the phase exp(2
    pi i twist_d) when one electron moves by L along d. Electrons 0..N/2-1 are up.

    An open shell is filled with its first waves: such a psi has a total momentum, and breaks the cubic symmetry.

    One network serves all densities and twists, as in `GeminalWavefunction`. Source: backflow and pair functions in
    neural wavefunctions of the electron gas, e.g. Cassella et al., PRL 130, 036401 (2023), and Pescia et al., PRB 110,
    035108 (2024).

    Args:
        system: electrons without protons; as many up as down.
        reference: state point whose rs is rs_0.
        num_determinants: K.
        num_layers: layers of the streams.
        single_width: features of an electron.
        pair_width: features of a pair.

    Raises:
        SettingError: a system with protons, different numbers of up and down electrons, or a size below 1.
    """

    carries_derivatives = True
    """All operations have forward rules: kinetic energies take one pass."""
    integers: Tensor
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
    ) -> None:
        super().__init__()
        if system.num_protons:
            raise SettingError("wavefunction", "jellium", "has no protons", "set system.protons=none, or drop it")
        sizes = {"num_layers": num_layers, "single_width": single_width, "pair_width": pair_width}
        check_spins_and_sizes(system, num_determinants=num_determinants, **sizes)
        self.system = system
        self.unit_length = system.cell.length
        self.register_buffer("reference_rs", torch.tensor(float(reference.rs)))
        self.register_buffer("integers", _candidates(system.num_down), persistent=False)
        self.jastrow = PlasmonJastrow(system)
        self.streams = ElectronStreams(num_layers, single_width, pair_width)
        self.geminal = NeuralGeminal(num_determinants, single_width, pair_width)
        self.backflow = near_zero(single_width, 3)
        self.neural_jastrow = near_zero(single_width, 1)
        self.register_buffer("spin_product", spin_products(system), persistent=False)

    def forward(self, protons: Tensor, electrons: Tensor, states: WalkerStates) -> Tensor:
        """ln psi (...), complex. Electrons (..., N, 3) in bohr; states (...) broadcast; protons are not read."""
        del protons
        up, rs_ratio = self.system.num_down, states.rs / self.reference_rs
        pairs = pair_geometry(self.unit_length * states.rs, electrons, electrons, same_particles=True)
        single, stream = self.streams(pairs, self.spin_product, states.twist, torch.log(rs_ratio))
        z = electrons + self.backflow(single) * rs_ratio[..., None, None]
        jastrow = self.jastrow(pairs.distance, states.rs) + self.neural_jastrow(single).sum((-2, -1))
        waves = self.wavevectors(states)
        partners = torch.eye(up, dtype=waves.dtype, device=waves.device).flip(0)
        pairing = partners.to(waves.dtype.to_complex()).unsqueeze(0)
        envelope = paired_plane_waves(z[..., :up, :], z[..., up:, :], waves, pairing)
        geminal = self.geminal(single[..., :up, :], single[..., up:, :], stream)
        log_psi: Tensor = jastrow + log_sum_of_determinants(envelope * geminal)
        return log_psi

    def wavevectors(self, states: WalkerStates) -> Tensor:
        """The N/2 lowest k + k_twist in 1/bohr, in lexicographic order.  # (..., N/2, 3)"""
        waves = self.integers + states.twist.unsqueeze(-2)  # (..., candidates, 3)
        level = (waves.square().sum(-1) / SAME_LEVEL).round()
        lowest = level.argsort(dim=-1, stable=True)[..., : self.system.num_down].sort(dim=-1).values
        chosen = torch.gather(waves, -2, lowest.unsqueeze(-1).expand(*lowest.shape, 3))
        return ((2.0 * math.pi / self.unit_length) / states.rs)[..., None, None] * chosen


class ElectronStreams(nn.Module):
    """The streams of `Backbone` over electrons of both spins and their pairs, without protons."""

    one: Tensor

    def __init__(self, num_layers: int, single_width: int, pair_width: int) -> None:
        super().__init__()
        self.start = nn.Linear(NUM_TWIST_FEATURES, single_width)
        self.density = nn.Parameter(torch.zeros(single_width))
        self.pairs = PairStream(NUM_PAIR_FEATURES + 1, pair_width, num_layers)
        self.gates = nn.ModuleList(nn.Linear(single_width, pair_width, bias=False) for _ in range(num_layers))
        self.updates = nn.ModuleList(Update(single_width, pair_width, num_kinds=2) for _ in range(num_layers))
        self.register_buffer("one", torch.ones(pair_width), persistent=False)

    def forward(
        self, pairs: PairGeometry, spin_product: Tensor, twist: Tensor, log_rs_ratio: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Single stream (..., N, single_width) and last pair stream (..., N, N, pair_width).

        `spin_product` (N, N) is +1 for pairs of the same and -1 of opposite spin; `twist` (..., 3) is fractional;
        `log_rs_ratio` (...) is ln(rs / rs_0).
        """
        angle = (2.0 * math.pi) * twist.unsqueeze(-2)
        start = self.start(torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1))
        start = start + log_rs_ratio[..., None, None] * self.density
        num = pairs.features.shape[-2]
        leading = torch.broadcast_shapes(pairs.features.shape[:-3], twist.shape[:-1])
        single = start.expand(*leading, num, -1)
        streams = self.pairs(pairs.features, spin_product.unsqueeze(-1))
        for gate, update, stream in zip(self.gates, self.updates, streams, strict=True):
            of_spins = block_means(single, 2)  # (..., 2, single width): up, down
            messages = messages_by_spin(stream, linear(single, cast(Tensor, gate.weight), self.one))
            # The sums of the messages become means through the weights, which are small.
            layers = cast(Update, update).messages
            heard = [
                (message, cast(Tensor, layer.weight) * (2.0 / num))
                for message, layer in zip(messages, layers, strict=True)
            ]
            single = update(single, (of_spins, of_spins.flip((-2,))), heard)
        return single, stream


def _candidates(num_filled: int) -> Tensor:
    """Integer vectors among which the `num_filled` lowest |n + twist| are, for every twist in (-1/2, 1/2]^3.

    In lexicographic order.
    """
    radius = 0
    while (4.0 / 3.0) * math.pi * max(radius - math.sqrt(0.75), 0.0) ** 3 < num_filled:
        radius += 1
    # A ball of this radius around any -twist holds enough; it reaches no farther than the twist beyond itself.
    vectors = integer_vectors(radius + 1)
    inside = vectors[(vectors**2).sum(-1) <= (radius + math.sqrt(0.75)) ** 2]
    return torch.from_numpy(inside[np.lexsort(inside.T[::-1])]).to(torch.get_default_dtype())

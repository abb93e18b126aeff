"""ln |psi_x(r)|^2 as a function of the electrons alone, with everything else prepared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.density.determinant import (
    GeminalConstants,
    geminal_constants,
    log_squared_determinant,
)
from lightning_vfe.models.wavefunction.density.envelopes import AtomicPairs, Envelope, PlaneWavePairs
from lightning_vfe.models.wavefunction.density.fused.choice import fused_or_plain_streams
from lightning_vfe.models.wavefunction.density.layout import converted, tensors_of
from lightning_vfe.models.wavefunction.density.pairs import PairConstants, pair_constants
from lightning_vfe.models.wavefunction.density.stream_weights import stream_constants
from lightning_vfe.models.wavefunction.density.streams import StreamConstants
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.state_point import WalkerStates


class DensityConstants(NamedTuple):
    """What ln |psi|^2 needs of parameters, protons and states."""

    pairs: PairConstants
    streams: StreamConstants
    envelope: Envelope
    geminal: GeminalConstants


class ElectronDensity:
    """ln |psi_x(r)|^2 (W, B) of electrons (W, B, N, 3) in units of rs, at any of their images.

    Up to rounding it is that of `log_psi` of a `GeminalWavefunction` or `MolecularWavefunction`.

    All weights are merged, and what depends on protons and states alone is computed, when the object is made: a call
    takes about 80 operations on few, large tensors. Parameters that change later are not seen.

    Attributes:
        constants: all tensors that it reads.
        unit_length: L / rs.
    """

    def __init__(self, constants: DensityConstants, unit_length: float) -> None:
        self.constants, self.unit_length = constants, unit_length

    @staticmethod
    @torch.no_grad()
    def prepare(
        wavefunction: GeminalWavefunction | MolecularWavefunction,
        protons: Tensor,
        states: WalkerStates,
        dtype: torch.dtype | None = None,
    ) -> ElectronDensity:
        """The density of one electron walker (B = 1) for each proton walker; see `for_walkers`.

        Args:
            wavefunction: psi_x(r).
            protons: in bohr.  # (W, N, 3)
            states: state point and twist of every proton walker.  # (W,)
            dtype: precision of the evaluations; None takes that of the wavefunction.
        """
        unit_length, half = wavefunction.unit_length, protons.shape[1] // 2
        ratio = states.rs / wavefunction.reference_rs
        fixed, scale = wavefunction.prepare(protons, states), wavefunction.cusp_scale(ratio)
        if isinstance(wavefunction, MolecularWavefunction):
            envelope: Envelope = AtomicPairs.of(wavefunction, fixed.pairing)
        else:
            envelope = PlaneWavePairs.of(wavefunction, fixed.pairing)
        constants = DensityConstants(
            pair_constants(wavefunction.jastrow, protons / states.rs[:, None, None], states, unit_length, scale),
            stream_constants(wavefunction.backbone, fixed.proton_pairs, states, torch.log(ratio), 2 * half),
            envelope,
            geminal_constants(wavefunction.geminal, wavefunction.neural_jastrow, half),
        )
        density = ElectronDensity(constants, unit_length)
        return density if dtype is None else density.to(dtype)

    def for_walkers(self, count: int) -> ElectronDensity:
        """The density of `count` electron walkers for each proton walker."""
        pairs, streams = self.constants.pairs.for_walkers(count), self.constants.streams
        streams = streams._replace(first=streams.first.for_walkers(count))
        return ElectronDensity(self.constants._replace(pairs=pairs, streams=streams), self.unit_length)

    def to(self, dtype: torch.dtype) -> ElectronDensity:
        """The same in another real precision."""
        complex_dtype = dtype.to_complex()
        change = converted(self.constants, lambda x: x.to(complex_dtype if x.is_complex() else dtype))
        return ElectronDensity(change, self.unit_length)

    def clone(self) -> ElectronDensity:
        """The same in memory of its own."""
        return ElectronDensity(converted(self.constants, torch.clone), self.unit_length)

    def tensors(self) -> list[Tensor]:
        """All tensors that a call reads, always in the same order."""
        return list(tensors_of(self.constants))

    def __call__(self, positions: Tensor) -> Tensor:
        """ln |psi|^2 (W, B) of electrons (W, B, N, 3) in units of rs."""
        pairs, streams, envelope, geminal = self.constants
        found = fused_or_plain_streams(pairs, streams, positions, self.unit_length)
        # The smaller sum first: in float32 each term that is added to a large number is rounded like that number.
        neural_jastrow = torch.mm(geminal.jastrow, found.electrons.reshape(-1, found.cusps.shape[-1]))
        jastrow = (neural_jastrow + found.cusps).view(positions.shape[:2])
        determinants = log_squared_determinant(geminal, envelope.pair_functions(pairs, found), found)
        return (jastrow + determinants.view_as(jastrow)).to(positions.dtype)

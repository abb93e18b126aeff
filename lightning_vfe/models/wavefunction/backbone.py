"""The streams of features over electrons, protons and their pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_vfe.forward_laplacian import (
    block_means,
    messages_by_spin,
    messages_to_first,
    messages_to_second,
    tanh_layer,
)
from lightning_vfe.models.wavefunction.features import NUM_PAIR_FEATURES, PairGeometry

NUM_TWIST_FEATURES = 6


def near_zero(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A linear layer without bias whose weights start a hundred times smaller than usual: it starts near zero."""
    layer = nn.Linear(num_inputs, num_outputs, bias=False)
    with torch.no_grad():
        layer.weight.mul_(0.01)
    return layer


class PairStream(nn.Module):
    """One pair stream: g <- tanh(A f) first, then g <- g + tanh(A g); each pair on its own.

    A pair stream depends on one relative vector alone, and the proton-proton stream on no electron: it keeps the
    leading dimensions of the protons.
    """

    def __init__(self, num_inputs: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(num_inputs if i == 0 else width, width) for i in range(num_layers))

    def forward(self, features: Tensor, constants: Tensor | None = None) -> Iterator[Tensor]:
        """The stream of one layer after the other, each (..., M, N, width), from the features (..., M, N, F).

        `constants` (M, N, F') are features that no position changes: the last inputs of the first layer. The streams
        come one at a time: whoever uses one before asking for the next finds it in the caches.
        """
        stream: Tensor | None = None
        for layer in self.layers:
            weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
            if stream is None and constants is not None:
                weight, of_constants = weight.split([features.shape[-1], constants.shape[-1]], dim=-1)
                bias = linear(constants, of_constants, bias)
            stream = tanh_layer([(features if stream is None else stream, weight)], bias, state=stream)
            yield stream


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    return [cast(Tensor, layer.weight) for layer in layers]


class Update(nn.Module):
    """h <- h + tanh(A h + sum_m B_m mean_m + sum_m C_m message_m): what a particle makes of what it hears."""

    def __init__(self, single_width: int, pair_width: int, num_kinds: int) -> None:
        super().__init__()
        self.own = nn.Linear(single_width, single_width)
        self.means = nn.ModuleList(nn.Linear(single_width, single_width, bias=False) for _ in range(num_kinds))
        self.messages = nn.ModuleList(nn.Linear(pair_width, single_width, bias=False) for _ in range(num_kinds))

    def forward(self, state: Tensor, means: tuple[Tensor, ...], messages: list[tuple[Tensor, Tensor]]) -> Tensor:
        """New state (..., N, single).

        Args:
            state: of the particles.  # (..., N, single)
            means: each for N / S particles in turn.  # (..., S, single)
            messages: with the weights that they are given.  # (..., N, pair), (single, pair)
        """
        shared = self.means[0](means[0])
        for layer, mean in zip(list(self.means)[1:], means[1:], strict=True):
            shared = shared + layer(mean)
        new: Tensor = tanh_layer([(state, self.own.weight), *messages], self.own.bias, shared, state)
        return new


class Mixing(nn.Module):
    """One layer of the single streams: every particle hears the means of the others and messages along its pairs.

    A message is mean_j g_ij * (1 + V h_j). Kinds: for an electron the electrons of the same spin, of the opposite spin,
    and the protons; for a proton the electrons and the protons. The last layer leaves the protons as they are: nobody
    hears them any more.
    """

    one: Tensor

    def __init__(self, single_width: int, pair_width: int, is_last: bool) -> None:
        super().__init__()
        self.gate_electron = nn.Linear(single_width, pair_width, bias=False)
        self.gate_proton = nn.Linear(single_width, pair_width, bias=False)
        self.register_buffer("one", torch.ones(pair_width), persistent=False)
        self.electron = Update(single_width, pair_width, num_kinds=3)
        self.proton = None if is_last else Update(single_width, pair_width, num_kinds=2)

    def forward(
        self, electrons: Tensor, protons: Tensor, pairs_ee: Tensor, pairs_ep: Tensor, pairs_pp: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """New single streams of electrons and protons, both (..., N, width).

        Pairs are (..., N, N, pair width); those of the protons are zero for a proton itself.
        """
        num = electrons.shape[-2]
        from_electrons = linear(electrons, self.gate_electron.weight, self.one)  # (..., N, pair width)
        from_protons = linear(protons, self.gate_proton.weight, self.one)
        of_spins = block_means(electrons, 2)  # (..., 2, single width): up, down
        of_protons = block_means(protons, 1)

        # The sums of the messages become means through the weights, which are small.
        same_spin, opposite_spin = messages_by_spin(pairs_ee, from_electrons)
        same_weight, opposite_weight, protons_weight = _weights(self.electron.messages)
        heard = [
            (same_spin, same_weight * (2.0 / num)),
            (opposite_spin, opposite_weight * (2.0 / num)),
            (messages_to_first(pairs_ep, from_protons), protons_weight / num),
        ]
        new_electrons = self.electron(electrons, (of_spins, of_spins.flip((-2,)), of_protons), heard)
        if self.proton is None or pairs_pp is None:
            return new_electrons, protons
        electrons_weight, protons_weight = _weights(self.proton.messages)
        heard = [
            (messages_to_second(pairs_ep, from_electrons), electrons_weight / num),
            (messages_to_first(pairs_pp, from_protons), protons_weight / num),
        ]
        return new_electrons, self.proton(protons, (block_means(of_spins, 1), of_protons), heard)


class Backbone(nn.Module):
    """Streams over protons and electrons of both spins, as in FermiNet.

    Source: Pfau et al., Phys. Rev. Research 2, 033429 (2020). Here the protons are particles of their own (Xie et al.,
    PRL 131, 126501 (2023)), messages are weighted by the sender's state, and both spins share all weights.
    """

    def __init__(self, num_layers: int, single_width: int, pair_width: int) -> None:
        super().__init__()
        self.electron_start = nn.Linear(NUM_TWIST_FEATURES, single_width)
        self.proton_start = nn.Linear(NUM_TWIST_FEATURES, single_width)
        # What the density adds to the start; zero until it is learned, and always where there is one density only.
        self.electron_density = nn.Parameter(torch.zeros(single_width))
        self.proton_density = nn.Parameter(torch.zeros(single_width))
        self.pairs_ee = PairStream(NUM_PAIR_FEATURES + 1, pair_width, num_layers)
        self.pairs_ep = PairStream(NUM_PAIR_FEATURES, pair_width, num_layers)
        self.pairs_pp = PairStream(NUM_PAIR_FEATURES, pair_width, num_layers - 1)
        self.mixing = nn.ModuleList(Mixing(single_width, pair_width, i == num_layers - 1) for i in range(num_layers))

    def proton_pairs(self, pp: PairGeometry) -> list[Tensor]:
        """Streams of the proton pairs (..., N, N, pair_width), zero for a proton itself: they know no electron.

        Feature by feature in memory, as messages_to_first takes them.
        """
        num = pp.features.shape[-2]
        others = 1.0 - torch.eye(num, dtype=pp.features.dtype, device=pp.features.device)
        return [(stream.movedim(-1, -3) * others).movedim(-3, -1) for stream in self.pairs_pp(pp.features)]

    def starts(self, twist: Tensor, log_rs_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """State of every electron and of every proton before the first layer, (..., 1, single_width) each."""
        angle = (2.0 * torch.pi) * twist.unsqueeze(-2)
        features = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)  # (..., 1, 6)
        density = log_rs_ratio[..., None, None]  # (..., 1, 1)
        electrons = self.electron_start(features) + density * self.electron_density
        return electrons, self.proton_start(features) + density * self.proton_density

    def forward(
        self,
        ee: PairGeometry,
        ep: PairGeometry,
        proton_pairs: list[Tensor],
        spin_product: Tensor,
        twist: Tensor,
        log_rs_ratio: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Single stream (..., N, single_width) and last electron pair stream (..., N, N, pair_width).

        `spin_product` (N, N) is +1 for pairs of the same and -1 of opposite spin; `twist` (..., 3) is fractional;
        `log_rs_ratio` (...) is ln(rs / rs_0).
        """
        streams_ee = self.pairs_ee(ee.features, spin_product.unsqueeze(-1))
        streams_ep = self.pairs_ep(ep.features)
        leading = torch.broadcast_shapes(ep.features.shape[:-3], twist.shape[:-1])
        num = ep.features.shape[-2]
        electrons, protons = (start.expand(*leading, num, -1) for start in self.starts(twist, log_rs_ratio))
        for mix, g_ee, g_ep, g_pp in zip(self.mixing, streams_ee, streams_ep, [*proton_pairs, None], strict=True):
            electrons, protons = mix(electrons, protons, g_ee, g_ep, g_pp)
        return electrons, g_ee

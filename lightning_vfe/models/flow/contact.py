"""The flow's first block: it opens the repulsive core around every proton without folding space."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, Conditional
from lightning_vfe.models.flow.edges import Edges, jacobian_of_sum, sum_images
from lightning_vfe.models.flow.step import FlowBlock, Step, StepResult
from lightning_vfe.physics.cell import PeriodicCell

# Widths of the Gaussians of t(r), in units of rs: from inside the core to the first neighbours.
WIDTHS = (0.25, 0.5, 0.75)
# Bounds of a. Above: the smallest det dz/dx of a pair is about exp(-45), far below what is ever sampled and far above
# rounding errors. Below: for a < -2 a narrow t(r) rises so fast that distances could change their order.
LARGEST_AMPLITUDE, SMALLEST_AMPLITUDE = 16.0, -2.0
# a per unit of the raw parameter. exp(-E/kT) spans tens of orders of magnitude in the core. The block has to take that
# up within tens of optimizer steps, before the message blocks, which are linear in their readout, try and fold space.
GAIN = 100.0
# Pairs of base protons closer than the first number are opened by the second one, in units of rs.
OPENING_RANGE, OPENING = 0.5, 0.8


class ContactBlock(FlowBlock):
    """Delta_i = 1/2 sum_j (exp[t(r_ij)] - 1) g(r_ij) r_ij / (1 + sum_j exp[t(r_ij)] g(r_ij)), sums over all images.

        t(r) = a sum_b w_b exp(-r^2 / rho_b^2) c(r),   g(r) = exp(-r^2 / rho_max^2) c(r),   sum_b w_b = 1, w_b > 0,

    with the taper c of `Edges`. For t > 0 each proton moves at most half the way to a weighted mean of its neighbours.
    An isolated pair at distance r in x is mapped to the distance r (1 + g) / (1 + g exp(t)) in z, which increases with
    r for every a and w: the determinant falls like exp(-3 t) in the core and stays positive. A residual map that is
    linear in its last parameters passes zero there instead, and turns space inside out (measured: a few percent of the
    volume after some hundred steps for hydrogen at 6000 K). ln det is nearly linear in a, which conditions the training
    well. a = 0 is the identity. a and w depend on the state point (condition.py).

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        cutoff: range of the tapers.
    """

    exponents: Tensor
    at_zero: Tensor
    ones: Tensor
    identity: Tensor
    bounds: Tensor
    zero: Tensor
    one: Tensor
    all_edges: Tensor

    def __init__(self, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.length = cell.length
        self.edges = Edges(cell, cutoff, fewest=False)  # its few functions are not worth a choice
        # In units of L: -r^2 / rho_b^2 is `exponents` r^2, and 1 - r^2 / r_c^2 falls by `steepness` r^2 from r = 0.
        self.steepness = (cell.length / cutoff) ** 2
        constants = {
            "exponents": -((cell.length / torch.tensor(WIDTHS, dtype=torch.float64).unsqueeze(-1)) ** 2),
            "at_zero": self.edges.roots_at_zero().view(1, 1, -1),
            "ones": torch.ones(3, 1),
            "identity": torch.eye(3),
            "bounds": torch.tensor([LARGEST_AMPLITUDE / GAIN, SMALLEST_AMPLITUDE / GAIN]),
            "zero": torch.zeros(()),
            "one": torch.ones(1, 1, 1),
            "all_edges": torch.ones(1, cell.num_atoms * self.edges.num_images, 1),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()), persistent=False)
        self.amplitude = nn.Parameter(torch.zeros(()))
        self.logits = nn.Parameter(torch.zeros(len(WIDTHS)))
        self.amplitude_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS))
        self.logit_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, len(WIDTHS)))

    @override
    def conditional(self) -> list[Conditional]:
        """See `FlowBlock.conditional`."""
        return [(self.amplitude, self.amplitude_slopes, 0), (self.logits, self.logit_slopes, 1)]

    @override
    def prepared(self, values: Tensor) -> Step:
        """The step for several positions, in units of L.

        Args:
            values: of `conditional` at the state points of the walkers.  # (W, 1 + b)
        """
        amplitude, logits = values.split([1, len(WIDTHS)], dim=-1)
        shares = torch.softmax(logits, dim=-1)
        weights = torch.addcmul(self.zero, self._bounded(amplitude), shares, value=GAIN)  # a w_b
        return functools.partial(self._step, weights.unsqueeze(1))

    def _step(self, weights: Tensor, positions: Tensor, with_jacobian: bool) -> StepResult:
        """`forward` with a w_b  # (W, 1, b), in units of L."""
        vectors = self.edges(positions)  # (W, N_i, N_j, M, 3)
        walkers, atoms = vectors.shape[:2]
        squared = torch.mm(vectors.square().view(-1, 3), self.ones).view(walkers, 1, -1)
        gaussians = torch.exp(squared * self.exponents)  # (W, b, N N M)
        inside = torch.sub(self.at_zero, squared, alpha=self.steepness).relu()
        bells = gaussians * inside**3
        widest = bells[:, -1:]
        exponential = torch.exp(torch.bmm(weights, bells))
        attraction = widest * exponential
        excess = (attraction - widest).view(walkers * atoms, 1, -1)
        attractions = attraction.view(walkers, atoms, -1)
        denominator = torch.baddbmm(self.one, attractions, self.all_edges.expand(walkers, -1, -1))  # 1 + sum
        numerator = torch.bmm(excess, vectors.view(walkers * atoms, -1, 3)).view(walkers, atoms, 3)
        image = torch.addcdiv(positions, numerator, denominator, value=0.5)
        if not with_jacobian:
            return StepResult(image)
        # As d f / d r = r * (slope of f), since everything depends on r^2.
        slopes = gaussians * (inside.square() * (-6.0 * self.steepness)) + 2.0 * self.exponents * bells
        attraction_slope = slopes[:, -1:] * exponential + attraction * torch.bmm(weights, slopes)
        shape = (*vectors.shape[:-1], 1)
        # The derivative of every term of the sum of excess r, and of the denominator with every term of its own sum.
        mean = (numerator / denominator)[:, :, None, None]
        change = vectors * (attraction_slope - slopes[:, -1:]).view(shape)
        change = torch.addcmul(change, attraction_slope.view(shape), mean, value=-1.0)
        isotropic = excess.view(vectors.shape[:-1]).sum(-1)[..., None, None] * self.identity
        gradient = sum_images(vectors, change, isotropic) * (0.5 / denominator)[..., None, None]
        gradient = jacobian_of_sum(gradient, self.edges.same)  # (W, N_i, N_j, 3, 3)
        return StepResult(image, gradient.permute(0, 1, 4, 2, 3).flatten(-2))

    def _bounded(self, amplitude: Tensor) -> Tensor:
        """a / GAIN between its bounds, twice differentiable, with slope one at zero."""
        bound = torch.where(amplitude > 0, self.bounds[0], self.bounds[1])
        return bound * torch.tanh(amplitude / bound)


def open_close_pairs(z: Tensor, length: float) -> Tensor:
    """z with close pairs pushed apart: where the map has closed them, x may be found from there.

    Args:
        z: in units of L.  # (W, N, 3)
        length: L in units of rs.
    """
    vectors = z.unsqueeze(1) - z.unsqueeze(2)
    vectors = vectors - vectors.round()
    squared = vectors.square().sum(-1, keepdim=True) * length**2
    # A unit vector, except for atoms that have met.
    pushes = torch.exp(-squared / OPENING_RANGE**2) * torch.rsqrt(squared + 1e-4) * vectors
    return z - 0.5 * OPENING * pushes.sum(2)

"""The equivariant map from protons x to base coordinates z, with its exact log-determinant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.flow.block import ResidualBlock
from lightning_vfe.models.flow.chain import through, through_midpoints, through_with_log_det
from lightning_vfe.models.flow.condition import COMBINATIONS, checked_reference, conditioned, conditions
from lightning_vfe.models.flow.contact import ContactBlock, open_close_pairs
from lightning_vfe.models.flow.inverse import invert
from lightning_vfe.models.flow.memory import WalkerMemory
from lightning_vfe.models.flow.newton import Solver
from lightning_vfe.models.flow.result import FlowResult, InverseResult
from lightning_vfe.models.flow.step import Step
from lightning_vfe.physics.chunking import map_rows
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System

# Default range of the messages in units of rs. A sphere of radius r_c holds (r_c / rs)^3 atoms on average, 16 here,
# whatever the number of atoms: the first two shells of neighbours. For N = 2 the edge is L = 2.03 rs, and the range
# covers the whole cell.
DEFAULT_CUTOFF = 2.5
# Range of the contact block in units of rs; its widest Gaussian is exp(-7) there.
CONTACT_CUTOFF = 2.0
# Longest way of an atom in one step of the inversion's last resort, in units of rs.
LONGEST_STEP = 0.5


class EquivariantFlow(nn.Module):
    r"""z = x_K with x_0 = x and x_{k+1} = x_k + Delta_k(x_k) on the torus, each Delta_k an equivariant network.

        ln|det dz/dx| = sum_k ln|det(I + d Delta_k / d x_k)|

    Step 0 changes the distances of close protons (`ContactBlock`); the others are message-passing networks
    (`ResidualBlock`) whose Jacobians are carried forward, at the cost of a few plain evaluations. Each network is
    applied `num_steps` times in a row, like the Euler steps of a flow in time. A contraction by a total factor f then
    needs f^(1/num_steps) of each step, and is far from the zero of the determinant, where a single step would fold
    space. Blocks with weights of their own fold after some hundred steps of training: the smallest factor gets the
    largest gradient. Positions enter through relative vectors, summed over all images within the cutoff: translations,
    permutations, lattice translations of single protons and the 48 cubic operations hold to rounding. The map is the
    identity at initialisation, infinitely smooth as protons meet, and C2 at the cutoff. It is differentiable once more,
    with respect to positions and parameters.

    Positions and results are in bohr. Inside, positions are in units of L and ranges in units of rs, so that one
    network serves all densities. The network also depends on density and temperature through `conditions`, with
    weights that start at zero.

    If det dz/dx < 0 somewhere, the normalised density is p(x) E_p[sign], because the integral of det over the torus is
    L^(3N) for every map of this kind. The free energy computed from ln p is then too high by -kT ln E_p[sign], so it
    stays an upper bound. The signs are returned so that a run can count them.

    Xie et al., PRL 131, 126501 (2023), use a FermiNet-like residual map instead. Equivariant messages: Thomas et
    al., arXiv:1802.08219; Batzner et al., Nat. Commun. 13, 2453 (2022). The carried Jacobian and the contact block are
    this package's own.

    Parameters may have a leading axis of walkers, one set for each, as `ProtonDensity.scores` gives them to
    torch.func.functional_call: one backward pass then gives the derivatives of every walker. The positions must
    be one batch (W, N, 3).

    Args:
        system: the protons.
        reference: state point at which the conditions are zero.
        num_blocks: message-passing networks after the contact block.
        num_steps: times that each network is applied.
        num_layers: message layers of each network.
        num_channels: channels of each irrep of the features.
        hidden_lmax: features have l = 0 to hidden_lmax.
        edge_lmax: spherical harmonics of the relative vectors have l = 0 to edge_lmax.
        num_radial: radial functions of the distance.
        cutoff: range of the messages in units of rs; it may exceed L / 2, and L.
        max_chunk_elements: rough bound on the numbers held at once by one layer; more walkers are evaluated in turns.
            None takes it from `physics.chunking`: what a CPU has cache for, or a part of the free memory.

    Raises:
        ValueError: a size is not a positive integer, or the cutoff not positive.
    """

    reference: Tensor
    combinations: Tensor

    def __init__(
        self,
        system: System,
        reference: StatePoint,
        num_blocks: int = 1,
        num_steps: int = 3,
        num_layers: int = 2,
        num_channels: int = 16,
        hidden_lmax: int = 1,
        edge_lmax: int = 2,
        num_radial: int = 8,
        cutoff: float = DEFAULT_CUTOFF,
        max_chunk_elements: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "num_blocks": num_blocks,
            "num_steps": num_steps,
            "num_layers": num_layers,
            "num_channels": num_channels,
            "hidden_lmax": hidden_lmax,
            "edge_lmax": edge_lmax,
            "num_radial": num_radial,
            "max_chunk_elements": max_chunk_elements,
        }
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise SettingError(name, size, "must be at least 1", "the default is a good start")
        cell = system.cell
        cell.check_cutoff(cutoff, "cutoff", f"{DEFAULT_CUTOFF} is usual", unit="rs")
        self.cell, self.num_steps, self.cutoff = cell, num_steps, cutoff
        # Part of the checkpoint: the parameters mean what they mean at this state point.
        self.register_buffer("reference", checked_reference(reference))
        self.register_buffer("combinations", torch.tensor(COMBINATIONS), persistent=False)
        self.contact = ContactBlock(cell, CONTACT_CUTOFF)
        self.networks = nn.ModuleList(
            ResidualBlock(cell, num_layers, num_channels, hidden_lmax, edge_lmax, num_radial, self.cutoff)
            for _ in range(num_blocks)
        )
        self.max_chunk_elements = max_chunk_elements
        columns, depth = (hidden_lmax + 1) ** 2 * num_channels, num_blocks * num_steps * num_layers
        self.memory = WalkerMemory.of(cast(ResidualBlock, self.networks[0]).basis, columns, depth)

    def batch_size(self, positions: Tensor, with_gradients: bool = False) -> int:
        """Walkers to be computed at once, with their Jacobians, on the device of these positions."""
        return self.memory.walkers_at_once(positions, with_gradients, self.max_chunk_elements)

    def to_base(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """Map protons to base coordinates, with the log-determinant.

        Args:
            x: protons in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)

        Raises:
            ValueError: x does not hold the cell's number of protons.
        """
        return self._in_bohr(lambda walkers, blocks: through_with_log_det(self._repeated(blocks), walkers), x, states)

    def to_base_midpoint(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """Approximation of `to_base` with one Jacobian for each network.

        The n = num_steps Euler steps of a network become one step of the midpoint rule that is n times as long,

            y = x + (n - 1)/2 Delta(x),    z = x + n Delta(y),    ln|det dz/dx| = n ln|det(I + d Delta / d y)|.

        A Markov chain may use the density of this map, and be corrected at its end. It is exact for n = 1.

        Args:
            x: protons in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)
        """
        return self._in_bohr(
            lambda walkers, blocks: through_midpoints(blocks[0], blocks[1:], self.num_steps, walkers), x, states
        )

    def displacement(self, x: Tensor, states: WalkerStates) -> Tensor:
        """z - x in bohr, without the Jacobian: several times cheaper than `to_base`.  # (..., N, 3) -> (..., N, 3)"""

        def displaced(walkers: Tensor, condition: Tensor, edge: Tensor) -> tuple[Tensor]:
            return (edge * (through(self._steps_at(condition), walkers) - walkers),)

        return self._in_parts(displaced, x, states, with_jacobian=False)[0].view(x.shape)

    @torch.no_grad()
    def from_base(
        self, z: Tensor, states: WalkerStates, tolerance: float = 1e-9, waits: bool | None = None
    ) -> InverseResult:
        """Invert the map, and verify x for every walker by the whole map: see `invert`.

        A map that folds can have several x for one z; this is one of them. Derivatives are not carried.

        Args:
            z: base coordinates in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)
            tolerance: largest |to_base(x) - z| over all coordinates of a walker, in units of rs. Not below what the
                precision of z allows, which matters in float32 only.
            waits: stop when all walkers have converged, for which the host waits for the device now and then. False
                makes a fixed number of evaluations without waiting. None: True on a CPU only.

        Raises:
            ValueError: z does not hold the cell's number of protons.
        """
        length = self.cell.length
        rounding = 64 * torch.finfo(z.dtype).eps * (3 * self.cell.num_atoms) ** 0.5
        waits = z.device.type == "cpu" if waits is None else waits
        solver = Solver(max(tolerance / length, rounding), LONGEST_STEP / length, waits)

        def inverted(walkers: Tensor, condition: Tensor, edge: Tensor) -> tuple[Tensor, ...]:
            found = invert(self._steps_at, walkers, condition, solver, lambda rest: open_close_pairs(rest, length))
            return edge * found.x, found.converged, edge.flatten() * found.residual

        x, converged, residual = self._in_parts(inverted, z, states, with_jacobian=False)
        shape = z.shape[:-2]
        return InverseResult(x.view(z.shape), converged.view(shape), residual.view(shape))

    def _steps_at(self, condition: Tensor) -> list[Step]:
        """All steps x_k -> x_k + Delta_k in their order, at the state points of the walkers.  # (W, NUM_CONDITIONS)"""
        return self._repeated(self._blocks(condition))

    def _repeated(self, blocks: list[Step]) -> list[Step]:
        """The contact block, and every network as often as it is applied."""
        return [blocks[0], *(network for network in blocks[1:] for _ in range(self.num_steps))]

    def _blocks(self, condition: Tensor) -> list[Step]:
        """The contact block and all networks, at the state points of the walkers.  # (W, NUM_CONDITIONS)"""
        networks = cast(list[ResidualBlock], list(self.networks))
        blocks: list[ContactBlock | ResidualBlock] = [self.contact, *networks]
        parameters = [block.conditional() for block in blocks]
        values = conditioned([each for own in parameters for each in own], condition)
        sizes = [
            sum(math.prod(parameter.shape[parameter.ndim - ndim :]) for parameter, _, ndim in own) for own in parameters
        ]
        return [block.prepared(own) for block, own in zip(blocks, values.split(sizes, dim=-1), strict=True)]

    def _in_parts(
        self,
        function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
        x: Tensor,
        states: WalkerStates,
        with_jacobian: bool,
    ) -> tuple[Tensor, ...]:
        """A function of batches of walkers that fit the memory, from positions in bohr (..., N, 3).

        It is given positions in units of the cell's edge L (W, N, 3), conditions (W, k), and L in bohr (W, 1, 1).
        """
        if x.shape[-2:] != (self.cell.num_atoms, 3):
            raise ValueError(f"positions have shape {tuple(x.shape)}; the flow needs (..., {self.cell.num_atoms}, 3)")
        flat = states.expand(*x.shape[:-2]).flatten()
        condition = conditions(flat, self.reference, self.combinations)
        edge = self.cell.length * flat.rs[:, None, None]
        rows = x.reshape(-1, *x.shape[-2:]) / edge, condition, edge
        if torch.is_grad_enabled():
            return function(*rows)  # a backward pass keeps what all walkers need, in parts or not
        size = self.batch_size(x)
        return map_rows(
            function, size if with_jacobian else size * self.memory.with_jacobian // self.memory.plain, *rows
        )

    def _in_bohr(
        self, function: Callable[[Tensor, list[Step]], FlowResult], x: Tensor, states: WalkerStates
    ) -> FlowResult:
        """A function of positions in units of L and blocks, for positions in bohr and any leading dimensions."""

        def found(walkers: Tensor, condition: Tensor, edge: Tensor) -> tuple[Tensor, ...]:
            result = function(walkers, self._blocks(condition))
            return edge * result.z, result.log_abs_det_dzdx, result.sign_det_dzdx

        z, log_abs_det, sign = self._in_parts(found, x, states, with_jacobian=True)
        return FlowResult(z.view(x.shape), log_abs_det.view(x.shape[:-2]), sign.view(x.shape[:-2]))

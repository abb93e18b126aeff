"""The equivariant map from protons x to base coordinates z, with its exact log-determinant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.flow.block import ResidualBlock
from lightning_vfe.models.flow.condition import conditions
from lightning_vfe.models.flow.contact import ContactBlock
from lightning_vfe.models.flow.inverse import InverseResult, invert_step
from lightning_vfe.models.flow.jet import Displacement
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System

# Default range of the messages in units of rs. A sphere of radius r_c holds (r_c / rs)^3 atoms on average, 16 here,
# whatever the number of atoms: the first two shells of neighbours. For N = 2 the edge is L = 2.03 rs, and the range
# covers the whole cell.
DEFAULT_CUTOFF = 2.5
# Range of the contact block in units of rs; its widest Gaussian is exp(-7) there.
CONTACT_CUTOFF = 2.0
SHARES = (0.1, 0.01, 0.001)
"""Shares of the tolerance that the steps of an inverse may leave over, one try after the other: later steps stretch it,
seldom by more than ten, and a small share can be below the rounding."""
ACCELERATOR_BATCHES = 16
"""Times as many walkers at once on an accelerator: 8 GiB at `max_chunk_elements` = 2^26 in float64."""


class FlowResult(NamedTuple):
    """Where the map sends the protons, and how it changes volumes."""

    z: Tensor
    """Base coordinates in bohr, not wrapped: moving a proton by a lattice vector moves its z by it. # (..., N, 3)"""
    log_abs_det_dzdx: Tensor
    """ln|det dz/dx| of the 3N x 3N Jacobian. # (...)"""
    sign_det_dzdx: Tensor
    """+1 where the map keeps the orientation of space. A -1 anywhere means that it folds, and that the density is not
    normalised: see `EquivariantFlow`. # (...)"""


class EquivariantFlow(nn.Module):
    r"""z = x_K with x_0 = x and x_{k+1} = x_k + Delta_k(x_k) on the torus, each Delta_k an equivariant network.

        ln|det dz/dx| = sum_k ln|det(I + d Delta_k / d x_k)|

    Step 0 opens the repulsive cores (`ContactBlock`); the others are message-passing networks (`ResidualBlock`) whose
    Jacobians are carried forward, at the cost of a few plain evaluations. Each network is applied `num_steps` times in
    a row, like the Euler steps of a flow in time. A contraction by a total factor f then needs f^(1/num_steps) of each
    step, and is far from the zero of the determinant, where a single step overshoots and folds space. (Measured: blocks
    of weights of their own fold after some hundred steps of training, because the smallest of the factors gets the
    largest gradient.) Positions enter through relative vectors,
    summed over all images within the cutoff: translations, permutations, lattice translations of single protons and the
    48 cubic operations hold to rounding. The map is the identity at initialisation, infinitely smooth as protons meet,
    and C2 at the cutoff. It is differentiable once more, with respect to positions and parameters.

    Inside, all lengths are in units of rs, so that one network serves all densities; positions and results are in bohr.
    What density and temperature change beyond that enters through `conditions`, with weights that start at zero.

    If det dz/dx < 0 somewhere, the normalised density is p(x) E_p[sign], because the integral of det over the torus is
    L^(3N) for every map of this kind. The free energy computed from ln p is then too high by -kT ln E_p[sign], so it
    stays an upper bound. The signs are returned so that a run can count them.

    Xie et al., PRL 131, 126501 (2023), use a FermiNet-like residual map in this place. Equivariant messages: Thomas et
    al., arXiv:1802.08219; Batzner et al., Nat. Commun. 13, 2453 (2022). The carried Jacobian and the contact block are
    this package's own.

    Parameters may have a leading axis of walkers, one set for each, as `ProtonDensity.scores` gives them to
    torch.func.functional_call: then one backward pass finds the derivatives of every single walker. The positions must
    be one batch (W, N, 3) of at most `walkers_at_once`.

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

    Raises:
        ValueError: a size is not a positive integer, or the cutoff not positive.
    """

    reference: Tensor
    identity: Tensor

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
        max_chunk_elements: int = 2**26,
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
            if size < 1:
                raise SettingError(name, size, "must be at least 1", "the default is a good start")
        if not reference.temperature_kelvin > 0:
            raise SettingError(
                "temperature_kelvin",
                reference.temperature_kelvin,
                "must be positive: the flow sees the coupling 1 / (rs kT)",
                "give StatePoint(rs, 6000.0) for example",
            )
        cell = system.cell
        cell.check_cutoff(cutoff, "cutoff", f"{DEFAULT_CUTOFF} is usual", unit="rs")
        self.cell, self.num_steps, self.cutoff = cell, num_steps, cutoff
        # Part of the checkpoint: the parameters mean what they mean at this state point.
        self.register_buffer("reference", torch.tensor([float(reference.rs), float(reference.kT)]))
        self.register_buffer("identity", torch.eye(3 * cell.num_atoms), persistent=False)
        self.contact = ContactBlock(cell, CONTACT_CUTOFF)
        self.networks = nn.ModuleList(
            ResidualBlock(cell, num_layers, num_channels, hidden_lmax, edge_lmax, num_radial, self.cutoff)
            for _ in range(num_blocks)
        )
        # A model of the memory: Jacobians of all features and message matrices for each pair; products of weights and
        # features, and the edge functions with their gradients, for 1.5 times the images within the cutoff. Measured
        # peaks are 0.2 to 0.45 GiB for N = 2 to 54, where the default allows 0.5 GiB.
        functions, components = (max(edge_lmax, hidden_lmax) + 1) ** 2, (hidden_lmax + 1) ** 2
        per_pair = num_channels * components * (2 * components + 12)
        per_edge = num_channels * components * (4 * components + 12) + 12 * functions + 4 * num_radial
        edges = 1.5 * cell.num_atoms * cutoff**3
        self.walkers_at_once = max(1, int(max_chunk_elements / (cell.num_atoms**2 * per_pair + edges * per_edge)))
        # A backward pass keeps what all layers hold.
        self.walkers_at_once_with_gradients = max(1, self.walkers_at_once // (num_blocks * num_steps * num_layers))

    def batch_size(self, positions: Tensor, with_gradients: bool = False) -> int:
        """Walkers that are computed at once on the device of these positions.

        An accelerator takes more: it is idle with few.
        """
        size = self.walkers_at_once_with_gradients if with_gradients else self.walkers_at_once
        return size if positions.device.type == "cpu" else ACCELERATOR_BATCHES * size

    def to_base(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """Map protons to base coordinates, with the log-determinant.

        Args:
            x: protons in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)

        Raises:
            ValueError: x does not hold the cell's number of protons.
        """
        return self._in_bohr(self._to_base, x, states)

    def to_base_midpoint(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """What `to_base` gives, up to an error, with one Jacobian for each network.

        The n = num_steps Euler steps of a network become one step of the midpoint rule that is n times as long,

            y = x + (n - 1)/2 Delta(x),    z = x + n Delta(y),    ln|det dz/dx| = n ln|det(I + d Delta / d y)|.

        A chain may run on a density made of this, and be corrected at its end. It is exact for n = 1.

        Args:
            x: protons in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)
        """
        return self._in_bohr(self._to_base_coarsely, x, states)

    def displacement(self, x: Tensor, states: WalkerStates) -> Tensor:
        """z - x in bohr, without the Jacobian: several times cheaper than `to_base`.  # (..., N, 3) -> (..., N, 3)"""
        parts = [rs * self._displacement(walkers, condition) for walkers, condition, rs in self._walkers(x, states)]
        return torch.cat(parts).view(x.shape)

    @torch.no_grad()
    def from_base(self, z: Tensor, states: WalkerStates, tolerance: float = 1e-9) -> InverseResult:
        """Invert the map step by step, from the last to the first, and verify x for every walker by the whole map.

        A map that folds can have several x for one z; this is one of them. Derivatives are not carried.

        Args:
            z: base coordinates in bohr, any images.  # (..., N, 3)
            states: their state points.  # (...)
            tolerance: largest |to_base(x) - z| over all coordinates of a walker, in units of rs. Not below what the
                precision of z allows, which matters in float32 only.

        Raises:
            ValueError: z does not hold the cell's number of protons.
        """
        rounding = 64 * torch.finfo(z.dtype).eps * self.cell.length * (3 * self.cell.num_atoms) ** 0.5
        parts = []
        for walkers, condition, rs in self._walkers(z, states):
            found = self._from_base(walkers, condition, max(tolerance, rounding))
            parts.append((rs * found.x, found.converged, rs.flatten() * found.residual))
        x, converged, residual = (torch.cat(columns) for columns in zip(*parts, strict=True))
        shape = z.shape[:-2]
        return InverseResult(x.view(z.shape), converged.view(shape), residual.view(shape))

    def _from_base(self, z: Tensor, condition: Tensor, tolerance: float) -> InverseResult:
        """from_base of one batch, in units of rs.  # (W, N, 3)"""
        found = self._undone(z, condition, tolerance, SHARES[0])
        for share in SHARES[1:]:
            missed = (~found.converged).nonzero().flatten()
            if not len(missed):
                break
            again = self._undone(z[missed], condition[missed], tolerance, share)
            better = again.converged.nonzero().flatten()
            for field, value in zip(found, again, strict=True):
                field[missed[better]] = value[better]
        return found

    def _undone(self, z: Tensor, condition: Tensor, tolerance: float, share: float) -> InverseResult:
        """The steps undone one by one, each to this share of the tolerance."""
        x, image, going = z.clone(), z.clone(), torch.arange(len(z), device=z.device)
        steps = list(reversed(self._steps()))
        for step, undone in zip(steps, [None, *steps], strict=False):
            # A network that was applied several times: the last one undone tells the image of where this one starts.
            known = image[going] if step is undone else None
            image = x.clone()
            found, arrived = invert_step(step, x[going], condition[going], share * tolerance, known)
            x[going] = found
            going = going[arrived]
            if not len(going):
                break
        residual = (x + self._displacement(x, condition) - z).flatten(1).norm(dim=-1)
        converged = torch.zeros_like(residual, dtype=torch.bool)
        converged[going] = residual[going] < tolerance
        return InverseResult(x, converged, residual)

    def _maps(self, condition: Tensor) -> list[Displacement]:
        """All maps x_k -> Delta_k in their order, at the state points of the walkers.  # (W, NUM_CONDITIONS)"""
        networks = [network.at(condition) for network in self._networks]
        return [self.contact.at(condition), *(network for network in networks for _ in range(self.num_steps))]

    @property
    def _networks(self) -> list[ResidualBlock]:
        return cast(list[ResidualBlock], list(self.networks))

    def _steps(self) -> list[nn.Module]:
        """All maps x_k -> Delta_k in their order."""
        return [self.contact, *(network for network in self.networks for _ in range(self.num_steps))]

    def _walkers(self, x: Tensor, states: WalkerStates) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of walkers that fit the memory, from positions in bohr (..., N, 3).

        Yields:
            Positions in units of rs (W, N, 3), conditions (W, k), and rs (W, 1, 1).
        """
        if x.shape[-2:] != (self.cell.num_atoms, 3):
            raise ValueError(f"positions have shape {tuple(x.shape)}; the flow needs (..., {self.cell.num_atoms}, 3)")
        flat = states.expand(*x.shape[:-2]).flatten()
        condition, rs = conditions(flat, self.reference), flat.rs[:, None, None]
        batch = x.reshape(x.shape[:-2].numel(), *x.shape[-2:]) / rs
        size = self.batch_size(x)
        yield from zip(batch.split(size), condition.split(size), rs.split(size), strict=True)

    def _in_bohr(self, function: Callable[[Tensor, Tensor], FlowResult], x: Tensor, states: WalkerStates) -> FlowResult:
        """A function of positions in units of rs and conditions, for positions in bohr of any leading dimensions."""
        parts = []
        for walkers, condition, rs in self._walkers(x, states):
            found = function(walkers, condition)
            parts.append((rs * found.z, found.log_abs_det_dzdx, found.sign_det_dzdx))
        z, log_abs_det, sign = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return FlowResult(z.view(x.shape), log_abs_det.view(x.shape[:-2]), sign.view(x.shape[:-2]))

    def _displacement(self, x: Tensor, condition: Tensor) -> Tensor:
        """displacement of one batch, in units of rs.  # (W, N, 3)"""
        z = x
        for step in self._maps(condition):
            z = z + step(z, False).value
        return z - x

    def _to_base(self, x: Tensor, condition: Tensor) -> FlowResult:
        """to_base of one batch, in units of rs.  # (W, N, 3)"""
        z, jacobians = x, []
        for step in self._maps(condition):
            displacement, jacobian = step(z, True)
            z = z + displacement
            jacobians.append(jacobian)
        sign, log_abs_det = self._determinants(jacobians)
        return FlowResult(z, log_abs_det.sum(0), sign.prod(0))

    def _to_base_coarsely(self, x: Tensor, condition: Tensor) -> FlowResult:
        """to_base_midpoint of one batch, in units of rs.  # (W, N, 3)"""
        displacement, jacobian = self.contact.at(condition)(x, True)
        z, jacobians, n = x + displacement, [jacobian], self.num_steps
        for network in self._networks:
            step = network.at(condition)
            middle = z if n == 1 else z + 0.5 * (n - 1) * step(z, False).value
            displacement, jacobian = step(middle, True)
            z = z + n * displacement
            jacobians.append(jacobian)
        sign, log_abs_det = self._determinants(jacobians)
        return FlowResult(z, log_abs_det[0] + n * log_abs_det[1:].sum(0), sign[0] * sign[1:].prod(0) ** n)

    def _determinants(self, jacobians: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Sign and ln|det(I + d Delta / d x)| of several steps.  # (W, N, 3, 3 N) each -> (steps, W)"""
        changes = torch.stack([jacobian for jacobian in jacobians if jacobian is not None]).flatten(2, 3)
        sign, log_abs_det = torch.linalg.slogdet(changes + self.identity)
        return sign, log_abs_det

"""A flow made of any invertible map: log-determinant by automatic differentiation, inverse by Newton steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from lightning_vfe.errors import SettingError
from lightning_vfe.models.flow.result import FlowResult, InverseResult
from lightning_vfe.physics.state_point import WalkerStates

MAX_STEPS, MAX_HALVINGS = 50, 8


class PlainFlow(nn.Module):
    """What the density needs of a flow, from a module that maps protons to base coordinates.

    The map must be differentiable, periodic in every proton (moving a proton by a lattice vector moves its image by it)
    and should be equivariant. Its Jacobian comes from forward-mode differentiation: right for every map, at the cost of
    3N directions.

    Args:
        map_: a module whose `to_base(x, states)` gives z in bohr  # (..., N, 3), for protons x in bohr  # (..., N, 3)
            and their state points  # (...).
    """

    def __init__(self, map_: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(map_, "to_base", None)):
            raise SettingError("flow", type(map_).__name__, "has no method to_base(x, states) that gives z")
        self.map = map_

    def to_base(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """z, ln|det dz/dx| and its sign of protons x (..., N, 3) in bohr."""
        z, jacobian = self._with_jacobian(x, states)
        sign, log_abs_det = torch.linalg.slogdet(jacobian)
        return FlowResult(z, log_abs_det.view(x.shape[:-2]), sign.view(x.shape[:-2]))

    to_base_midpoint = to_base

    def displacement(self, x: Tensor, states: WalkerStates) -> Tensor:
        """z - x in bohr (..., N, 3)."""
        return self._map(x, states) - x

    @torch.no_grad()
    def from_base(self, z: Tensor, states: WalkerStates, tolerance: float = 1e-9) -> InverseResult:
        """Invert the map by Newton steps, each halved until it brings the walker closer to its z.

        Args:
            z: base coordinates in bohr.  # (..., N, 3)
            states: their state points.  # (...)
            tolerance: largest |to_base(x) - z| over all coordinates of a walker, in units of rs.
        """
        wanted = tolerance * states.rs.expand(z.shape[:-2])
        x, residual = z, (z - self._map(z, states))
        for _ in range(MAX_STEPS):
            distance = residual.flatten(-2).norm(dim=-1)
            if bool((distance < wanted).all()):
                break
            _, jacobian = self._with_jacobian(x, states)
            flat = residual.reshape(-1, residual.shape[-2] * 3, 1)
            direction = torch.linalg.solve_ex(jacobian, flat)[0].view_as(x)
            scale = torch.ones_like(distance)
            for _ in range(MAX_HALVINGS):
                candidate = x + scale[..., None, None] * direction
                missing = z - self._map(candidate, states)
                closer = missing.flatten(-2).norm(dim=-1) < distance
                scale = torch.where(closer, scale, 0.5 * scale)
            x = torch.where(closer[..., None, None], candidate, x)
            residual = torch.where(closer[..., None, None], missing, residual)
        distance = residual.flatten(-2).norm(dim=-1)
        return InverseResult(x, distance < wanted, distance)

    def _map(self, x: Tensor, states: WalkerStates) -> Tensor:
        z: Tensor = self.map.to_base(x, states)  # type: ignore[operator]
        return z

    def _with_jacobian(self, x: Tensor, states: WalkerStates) -> tuple[Tensor, Tensor]:
        """z  # (..., N, 3), and dz/dx of every walker  # (W, 3N, 3N)."""

        def of_one(flat: Tensor, rs: Tensor, kT: Tensor, twist: Tensor) -> Tensor:
            return self._map(flat.view(-1, 3), WalkerStates(rs, kT, twist)).flatten()

        each = states.expand(*x.shape[:-2]).flatten()
        batch = x.reshape(-1, x.shape[-2] * 3)
        jacobian = vmap(jacfwd(of_one))(batch, each.rs, each.kT, each.twist)
        return self._map(x, states), jacobian

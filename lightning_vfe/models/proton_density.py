"""p(x): the base density pulled back through the flow, with one log_prob."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.contracts import Base, Flow
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.flow.plain import PlainFlow
from lightning_vfe.physics.chunking import after_halvings, map_rows
from lightning_vfe.physics.state_point import WalkerStates


class ProtonTerms(NamedTuple):
    """Everything that p(x) is made of, for proton walkers (...)."""

    log_prob: Tensor
    """ln p(x) = ln p_base(z) + ln|det dz/dx|, in bohr^(-3N). # (...)"""
    base_energy: Tensor
    """E_ML(z) in Ha, whole cell. # (...)"""
    log_abs_det_dzdx: Tensor  # (...)
    sign_det_dzdx: Tensor
    """+1 everywhere for an invertible map; p(x) is not normalised where it is -1. # (...)"""
    z: Tensor
    """Base protons in bohr, not wrapped. # (..., N, 3)"""


class ProtonDensity(nn.Module):
    """ln p(x) = ln p_base(z) + ln|det dz/dx| with z = flow.to_base(x), normalised over ordered protons in the cell.

    Base and flow depend on the state point of each walker.

    Args:
        base: p_base(z).
        flow: z(x); a module with `to_base(x, states) -> z` alone is wrapped in a `PlainFlow`.
    """

    def __init__(self, base: Base, flow: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.flow: Flow = flow if isinstance(flow, Flow) else PlainFlow(flow)

    def evaluate(self, x: Tensor, states: WalkerStates) -> ProtonTerms:
        """All terms of protons x (..., N, 3) in bohr at their state points (...)."""
        z, log_abs_det, sign = self.flow.to_base(x, states)
        energy = self.base.energy(z, states)  # once: it may be an expensive network
        return ProtonTerms(self.base.log_prob(z, states, energy) + log_abs_det, energy, log_abs_det, sign, z)

    def log_prob(self, x: Tensor, states: WalkerStates) -> Tensor:
        """ln p(x) (...) of protons x (..., N, 3) in bohr at their state points (...)."""
        return self.evaluate(x, states).log_prob

    def surrogate_log_prob(self, x: Tensor, states: WalkerStates) -> Tensor:
        """ln p_base(z) + ln|det dz/dx| (...) of protons (..., N, 3) by `to_base_midpoint` of the flow.

        It is close to ln p(x) and cheaper, but not normalised.
        """
        z, log_abs_det, _ = self.flow.to_base_midpoint(x, states)
        return self.base.log_prob(z, states) + log_abs_det

    def forward(self, x: Tensor, states: WalkerStates) -> Tensor:
        """The same as `log_prob`, so that torch.func.functional_call finds it."""
        return self.log_prob(x, states)

    def scores(self, x: Tensor, states: WalkerStates, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
        """ln p(x) and its derivatives with respect to every trainable parameter, walker by walker.

        A flow whose parameters may have a leading axis of walkers gets a copy of them for each, so that one backward
        pass gives all derivatives at once. Any other flow is differentiated by torch.func, walker by walker.

        Args:
            x: protons in bohr.  # (W, N, 3)
            states: their state points.  # (W,)
            chunk_size: walkers at once; None takes as many as the free memory, or the flow's `max_chunk_elements`,
                allows.

        Returns:
            ln p(x), lengths in bohr  # (W,), and d ln p / d phi, phi the flattened trainable parameters in the order of
            `parameters()`  # (W, P)

        Raises:
            ValueError: chunk_size is not positive.
        """
        if chunk_size is not None and chunk_size < 1:
            raise SettingError("chunk_size", chunk_size, "must be at least 1", "None chooses one that fits the memory")
        if isinstance(self.flow, EquivariantFlow):
            function, limit = self._scores, self.flow.batch_size(x, with_gradients=True)
        else:
            function, limit = self._scores_by_func, after_halvings(len(x))
        if chunk_size is not None:
            limit = min(limit, after_halvings(chunk_size))
        rows = (x.detach(), states.rs, states.kT, states.twist)
        log_prob, scores = map_rows(lambda walkers, *own: function(walkers, WalkerStates(*own)), limit, *rows)
        return log_prob, scores

    @torch.enable_grad()
    def _scores(self, x: Tensor, states: WalkerStates) -> tuple[Tensor, Tensor]:
        """scores of one chunk."""
        own = {
            name: parameter.detach().expand(len(x), *parameter.shape).clone().requires_grad_()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }
        log_prob = torch.func.functional_call(self, own, (x, states))
        gradients = torch.autograd.grad(log_prob.sum(), list(own.values()))
        return log_prob.detach(), torch.cat([gradient.unsqueeze(-1).flatten(1) for gradient in gradients], dim=1)

    @torch.enable_grad()
    def _scores_by_func(self, x: Tensor, states: WalkerStates) -> tuple[Tensor, Tensor]:
        """scores of one chunk, for any flow."""
        parameters = {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

        def log_prob(own: dict[str, Tensor], one: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
            value = torch.func.functional_call(self, own, (one, WalkerStates(*state)))
            return value, value

        function = torch.func.vmap(torch.func.grad(log_prob, has_aux=True), in_dims=(None, 0, 0, 0, 0))
        gradients, values = function(parameters, x, states.rs, states.kT, states.twist)
        columns = [gradients[name].unsqueeze(-1).flatten(1) for name in parameters]
        return values.detach(), torch.cat(columns, dim=1).detach()

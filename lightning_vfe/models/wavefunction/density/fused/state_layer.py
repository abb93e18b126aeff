"""The kernels of the single streams as a function that PyTorch differentiates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vfe.models.wavefunction.density.fused.launch import LEAST_ROWS, launch, power_of_two
from lightning_vfe.models.wavefunction.density.fused.state_kernels import states_backward, states_forward
from lightning_vfe.models.wavefunction.density.streams import Layer

COLUMNS = 64
"""Of a tile: more need more registers than a thread has."""


class StateLayer(torch.autograd.Function):
    """`new_states` of streams.py with given messages.

    `apply(states, messages, heard, layer)` takes states (4, S, n, w), messages to the electrons (4, F, N, w) and to the
    protons (2, 2 F, n, w), empty in the last layer, and the weights. It returns the new states (R, S, n, w).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, messages: Tensor, heard: Tensor, layer: Layer) -> Tensor:
        """See the class."""
        num_walkers = states.shape[-1]
        receivers = len(layer.own)
        shared = torch.addmm(layer.bias, layer.sums, states.sum(2).flatten(0, 1)).view(receivers, -1, num_walkers)
        to_protons = layer.own[:0] if layer.to_protons is None else layer.to_protons
        read = (states, shared, messages, heard, layer.own, layer.to_electrons, to_protons)
        new = torch.empty_like(states[:receivers])
        _launch(states_forward, (*read, new), messages.shape[1])
        ctx.save_for_backward(*read, layer.sums)
        return new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_states: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by the states and the messages."""
        *read, sums = ctx.saved_tensors
        states, shared, messages, heard = read[:4]
        receivers = len(shared)
        by_states, by_shared = torch.empty_like(states), torch.empty_like(shared)
        by_messages, by_heard = torch.empty_like(messages), torch.empty_like(heard)
        by_states[receivers:] = 0.0
        written = (by_states, by_shared, by_messages, by_heard)
        _launch(states_backward, (*read, of_states.contiguous(), *written), messages.shape[1])
        by_states += (sums.T @ by_shared.flatten(0, 1)).view(4, -1, 1, by_shared.shape[-1])
        return by_states, by_messages, by_heard, None


def _launch(kernel: Any, tensors: tuple[Tensor, ...], width: int) -> None:
    states, shared = tensors[:2]
    _, num_states, half, num_walkers = states.shape
    sizes = {"STATES": num_states, "ROWS": max(LEAST_ROWS, power_of_two(num_states))}
    sizes |= {"WIDTH": width, "MESSAGES": max(LEAST_ROWS, power_of_two(4 * width))}
    launch(kernel, tensors, 2 * half, num_walkers, len(shared), COLUMNS, **sizes)

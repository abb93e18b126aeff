"""The ways from an input, by an edge function, to an output, coupled by Wigner 3j symbols."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor


class Path(NamedTuple):
    """One way from an input, by an edge function, to an output."""

    couplings: Tensor
    """Wigner 3j symbols, float64. # (edge components, output components, input components)"""
    edge: int
    input: int
    output: int
    """Degrees."""


def path_couplings(input_irreps: o3.Irreps, output_irreps: o3.Irreps, edge_irreps: o3.Irreps) -> list[Path]:
    """All allowed paths.

    Each is scaled so that independent unit-variance weights and components give outputs of unit variance.
    """
    paths = []
    for ir_output, rows in zip(output_irreps, output_irreps.slices(), strict=True):
        fan_in = [
            (ir_input.ir, columns, ir_edge.ir, components)
            for ir_input, columns in zip(input_irreps, input_irreps.slices(), strict=True)
            for ir_edge, components in zip(edge_irreps, edge_irreps.slices(), strict=True)
            if ir_output.ir in ir_input.ir * ir_edge.ir
        ]
        for ir_input, columns, ir_edge, components in fan_in:
            path = torch.zeros(edge_irreps.dim, output_irreps.dim, input_irreps.dim, dtype=torch.float64)
            symbol = o3.wigner_3j(ir_edge.l, ir_output.ir.l, ir_input.l, dtype=torch.float64)
            path[components, rows, columns] = symbol * math.sqrt(ir_output.ir.dim / len(fan_in))
            paths.append(Path(path, ir_edge.l, ir_input.l, ir_output.ir.l))
    return paths


def arranged_couplings(paths: list[Path], num_outputs: int, num_radial: int) -> tuple[Tensor, Tensor]:
    """Paths to the outputs, by the degrees of the edge function and of the output: F of them at most have the same two.

    Returns:
        Row of W.flatten(0, 1) for every function and output; where there is no path, any row  # (F, lm, b, O), and the
        couplings, zero there  # (F, lm, O, A)
    """
    found: dict[tuple[int, int], list[int]] = {}
    for index, path in enumerate(paths):
        if path.output**2 < num_outputs:
            found.setdefault((path.edge, path.output), []).append(index)
    fan = max(map(len, found.values()))
    angular, _, components = paths[0].couplings.shape
    places = torch.zeros(fan, angular, num_radial, num_outputs, dtype=torch.long)
    couplings = torch.zeros(fan, angular, num_outputs, components, dtype=torch.float64)
    for (edge, output), indices in found.items():
        rows, columns = slice(edge**2, (edge + 1) ** 2), slice(output**2, (output + 1) ** 2)
        for row, index in enumerate(indices):
            numbers = torch.arange(num_radial) + index * num_radial
            places[row, rows, :, columns] = numbers.view(1, -1, 1)
            couplings[row] += paths[index].couplings[:, :num_outputs]
    return places, couplings

"""How many walkers of the flow are evaluated at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.physics.chunking import max_chunk_elements, max_kept_elements

LAYER_TEMPORARIES = 16
"""One layer may hold as many numbers as this many temporaries: a few times the cache of a CPU, beyond which all
operations wait for the memory, or an eighth of the free memory of an accelerator, which is idle with few walkers."""


@dataclass(frozen=True)
class WalkerMemory:
    """Numbers held at once for one walker.

    Attributes:
        plain: by one layer of the plain map.
        with_jacobian: by one layer, with its Jacobian.
        kept: by all layers with their Jacobians, for a backward pass.
    """

    plain: int
    with_jacobian: int
    kept: int

    def walkers_at_once(self, positions: Tensor, with_gradients: bool, max_elements: int | None) -> int:
        """Walkers with Jacobians that fit the memory of the device of the positions.

        Args:
            positions: of the walkers.
            with_gradients: whether a backward pass follows.
            max_elements: largest numbers of elements held by a layer, or kept; None takes it from the memory.
        """
        if with_gradients:
            return max(1, (max_elements or max_kept_elements(positions)) // self.kept)
        return max(1, (max_elements or LAYER_TEMPORARIES * max_chunk_elements(positions)) // self.with_jacobian)

    @staticmethod
    def of(basis: EdgeBasis, columns: int, depth: int) -> WalkerMemory:
        """Count them, roughly.

        Args:
            basis: of the edges.
            columns: A C, features of an atom.
            depth: layers, all applications counted.
        """
        num_atoms, functions = len(basis.edges.same), basis.num_radial * basis.num_components
        pairs = num_atoms**2
        edges = pairs * basis.edges.num_images
        plain = edges * (42 + 4 * basis.num_radial) + pairs * 3 * functions + num_atoms * 2 * functions * columns
        with_jacobian = edges * (42 + 4 * basis.num_radial + 10 * basis.num_components)
        with_jacobian += pairs * (12 * functions + 20 * columns) + num_atoms * 2 * functions * columns
        return WalkerMemory(plain, with_jacobian, depth * with_jacobian)

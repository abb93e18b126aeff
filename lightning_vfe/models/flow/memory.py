"""How many walkers of the flow are evaluated at once."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_vfe.models.flow.edge_basis import EdgeBasis

# Numbers that one layer may hold, on a CPU: a few times its cache, beyond which all operations wait for the memory.
CACHED_NUMBERS = 2**23
# The same where derivatives of all layers are kept, which do not stay in the cache anyhow.
KEPT_NUMBERS = 2**25
# The same on an accelerator, which is idle with few walkers: 8 GiB in float64.
ACCELERATOR_NUMBERS = 2**30


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

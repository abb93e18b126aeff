"""How many walkers of the flow are evaluated at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Numbers that one layer may hold, on a CPU: a few times its cache, beyond which all operations wait for the memory.
CACHED_NUMBERS = 2**23
# The same where derivatives of all layers are kept, which do not stay in the cache anyhow.
KEPT_NUMBERS = 2**25
# On an accelerator, the part of its memory, in numbers of eight bytes.
PART_OF_MEMORY = 0.25


@dataclass(frozen=True)
class HeldNumbers:
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
    def of(
        num_atoms: int, num_images: int, num_radial: int, functions: int, components: int, channels: int, depth: int
    ) -> HeldNumbers:
        """Count them, roughly.

        Args:
            num_atoms: N.
            num_images: M, of every pair.
            num_radial: b, radial functions.
            functions: lm, angular functions.
            components: A, of the features.
            channels: C.
            depth: layers, all applications counted.
        """
        pairs, columns = num_atoms**2, components * channels
        size = num_radial * functions
        edges = pairs * num_images * (12 + 4 * num_radial + 30)
        plain = edges + pairs * (3 * size) + num_atoms * 2 * size * columns
        edges += pairs * num_images * 10 * functions
        with_jacobian = edges + pairs * (12 * size + 8 * columns) + num_atoms * (2 * size + 12 * num_atoms) * columns
        return HeldNumbers(plain, with_jacobian, depth * with_jacobian)


def walkers_that_fit(numbers: int, device: torch.device) -> int:
    """How many walkers an accelerator takes at once.

    Args:
        numbers: held for one walker.
        device: the accelerator.
    """
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, int(PART_OF_MEMORY * memory / 8) // numbers)

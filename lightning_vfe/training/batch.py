"""What the datamodule hands to the module at every step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_vfe.sampling.nested import SweepReport


@dataclass
class Batch:
    """Walkers after a sweep with the current parameters.

    Attributes:
        protons: bohr. # (W, N, 3)
        electrons: bohr. # (W, B, N, 3)
        twists: fractional. # (W, 3)
        strata: number of each walker's twist. # (W,)
        report: acceptances and widths of the sweep.
    """

    protons: Tensor
    electrons: Tensor
    twists: Tensor
    strata: Tensor
    report: SweepReport

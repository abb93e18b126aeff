"""What the parts of a variational state must give. Whoever gives it is such a part, whatever class it is of.

Positions and results are in Hartree atomic units. Leading dimensions of positions and states broadcast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self, runtime_checkable

from torch import Tensor, nn

from lightning_vfe.models.flow.result import FlowResult, InverseResult
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates


class Wavefunction(Protocol):
    """psi_x(r): an nn.Module that gives ln psi.

    Two optional members make it faster:

    - `carries_derivatives = True`: its operations have forward rules, and the kinetic energy takes one pass. Without it
      the kinetic energy comes from nested differentiation.
    - `prepare(protons, states)`: what depends on the protons alone, with a method `to(dtype)`; the call then takes it
      as the keyword `fixed`.

    Derivatives by its parameters come sample by sample from torch.func (`wavefunction_scores`), so that its operations
    must work under torch.func.vmap.
    """

    def __call__(self, protons: Tensor, electrons: Tensor, states: WalkerStates) -> Tensor:
        """ln psi, complex (...), of protons and electrons (..., N, 3) in bohr."""
        ...


@runtime_checkable
class Flow(Protocol):
    """z(x): an nn.Module that maps protons to base coordinates. `to_base` is enough, see `PlainFlow`."""

    def to_base(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """z in bohr, ln|det dz/dx| and its sign, of protons (..., N, 3) in bohr."""
        ...

    def to_base_midpoint(self, x: Tensor, states: WalkerStates) -> FlowResult:
        """A cheaper approximation of `to_base`: a surrogate for chains."""
        ...

    def displacement(self, x: Tensor, states: WalkerStates) -> Tensor:
        """z - x in bohr (..., N, 3)."""
        ...

    def from_base(self, z: Tensor, states: WalkerStates) -> InverseResult:
        """x in bohr of base coordinates (..., N, 3), and whether it was found."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Those of an nn.Module."""
        ...


class Base(Protocol):
    """p_base(z): an nn.Module. Markov chains sample it, unless it has `sample(states, random) -> z`."""

    def energy(self, z: Tensor, states: WalkerStates) -> Tensor:
        """E_ML(z) in Ha (...) of base protons (..., N, 3) in bohr."""
        ...

    def log_prob(self, z: Tensor, states: WalkerStates, energy: Tensor | None = None) -> Tensor:
        """ln p_base(z), normalised; `energy` is E_ML(z) if known."""
        ...

    def free_energy(self, states: WalkerStates) -> Tensor:
        """-kT ln Z_ML in Ha, whole cell. # (...)"""
        ...

    def free_energy_error(self, states: WalkerStates) -> Tensor:
        """Standard error of `free_energy`. # (...)"""
        ...


class PotentialEnergy(Protocol):
    """E_ML(z): an nn.Module that gives energies, for a `BoltzmannBase`.

    One that derives from `Potential` also has forces and pressure, refuses densities outside its range, and can be
    stored in a file and trained.
    """

    def energy(self, z: Tensor, cell: PeriodicCell) -> Tensor:
        """E(z) in Ha (...), whole cell, of protons (..., N, 3) in bohr."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """That of an nn.Module."""
        ...

    def train(self, mode: bool = True) -> Self:
        """That of an nn.Module."""
        ...

"""Write a potential as a program of torch.export, which runs without this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_vfe.errors import SettingError
from lightning_vfe.files import whole_file
from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import all_pairs, candidates


class _Program(nn.Module):
    """E(z) in Ha (W,) of positions (W, N, 3) in bohr in cubes with edges (W,) in bohr, over all pairs and images."""

    def __init__(self, potential: Potential, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.potential = potential
        self._table = candidates(cell, cutoff)

    def forward(self, positions: Tensor, lengths: Tensor) -> Tensor:
        return self.potential.energy_of_pairs(all_pairs(positions, lengths, self._table))


def export_potential(path: str | Path, out: str | Path, num_atoms: int, forces: bool = False) -> Path:
    """Write a stored potential as a file that torch reads without this package: `torch.export.load(out).module()`.

    The program maps positions (W, N, 3) in bohr, in any image, and edges of the cube (W,) in bohr to energies (W,) in
    Ha, in double precision. W is free, N is fixed. It is differentiable: forces are -dE/dz. It does not check that the
    density is in the rs_range of the potential. `ExportedPotential.from_file` reads it, too.

    All images of all pairs are computed, since a program has fixed shapes: for large N the original is faster.

    Args:
        path: file of the potential, as `save_potential` writes it.
        out: file to write, usually *.pt2.
        num_atoms: N.
        forces: the program returns the energies and the forces (W, N, 3) in Ha/bohr, and is not differentiable. It is
            for compiled programs, which have no gradient; `ExportedPotential` refuses it.

    Returns:
        The file.

    Raises:
        SettingError: the potential is missing, damaged, or more than a sum over pairs (such as an ASE calculator), or
            N is not positive.
    """
    potential, metadata = load_potential(path)
    cell = PeriodicCell(num_atoms, float(metadata["rs_range"][0]))
    try:
        program = _Program(potential.double().requires_grad_(False), cell, _cutoff(potential)).eval()
        length = torch.full((2,), cell.length, dtype=torch.float64)
        example = torch.rand(2, num_atoms, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        example = example * cell.length
        program(example, length)
    except NotImplementedError as error:
        raise SettingError(
            "path", path, f"cannot be exported: {error}", "export a SchNet, Yukawa or their sum"
        ) from error
    walkers = torch.export.Dim("W", min=1)
    shapes = ({0: walkers}, {0: walkers})
    traced: nn.Module = program
    if forces:  # the weights stay plain tensors, the constants of the traced program
        tracer = make_fx(_with_forces(program), tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced = tracer(example, length)
    exported = torch.export.export(traced, (example, length), dynamic_shapes=shapes, strict=False)
    with whole_file(out, "wb") as stream:
        torch.export.save(exported, stream)
    return Path(out)


def _with_forces(program: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """E(z) in Ha (W,) and -dE/dz in Ha/bohr (W, N, 3), as a function."""

    def energies_and_forces(positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.detach().requires_grad_()
        energies = program(positions, lengths)
        (slopes,) = torch.autograd.grad(energies.sum(), positions)
        return energies.detach(), -slopes

    return energies_and_forces


def _cutoff(potential: Potential) -> float:
    """The longest range of its parts.

    Raises:
        NotImplementedError: it has none.
    """
    if isinstance(potential, DeltaPotential):
        return max(_cutoff(potential.baseline), _cutoff(potential.correction))
    if potential.cutoff is None:
        raise NotImplementedError(f"a {type(potential).__name__} has no cutoff")
    return potential.cutoff

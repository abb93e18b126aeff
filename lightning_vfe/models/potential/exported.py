"""A program of torch.export as a potential of the protons."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.models.potential.potential import Potential, is_transformed
from lightning_vfe.physics.cell import PeriodicCell


class ExportedPotential(Potential):
    """E(z) of a program that torch.export wrote, from any network of any package.

    The program maps positions (W, N, 3) in bohr and edges of the cube (W,) in bohr to energies (W,) in Ha. Its first
    dimension is dynamic; N is that of the example it was exported with, unless that is dynamic, too:

        torch.export.save(torch.export.export(model, (z, length), dynamic_shapes=({0: W}, {0: W})), "model.pt2")

    Energies, forces and pressures are its derivatives. torch.func does not apply: use the built-in flow with it.

    Reading a program may run code in it. `load_potential` therefore reads one only after the call
    `register_potential("exported", ExportedPotential)`: call it for files that you trust.

    Args:
        num_bytes: size of the program; `from_file` sets it.
        rs_range: densities in bohr at which it may be used; None for any.
    """

    program: Tensor

    def __init__(self, num_bytes: int, rs_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.rs_range = rs_range
        self.register_buffer("program", torch.zeros(num_bytes, dtype=torch.uint8))
        self._module: list[torch.nn.Module] = []  # in a list: its parameters are no parameters of this potential

    @classmethod
    def from_file(cls, path: str | Path, rs_range: tuple[float, float] | None = None) -> ExportedPotential:
        """The potential of a .pt2 file.

        Raises:
            SettingError: the file is missing, or no program of torch.export.
        """
        if not Path(path).is_file():
            raise SettingError("path", path, ": no such file", "give one that torch.export.save wrote")
        content = Path(path).read_bytes()
        potential = cls(len(content), rs_range)
        potential.program.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        try:
            potential._run()
        except Exception as error:  # whatever the reader of torch meets
            raise SettingError(
                "path", path, f"is no program of torch.export for energies ({one_line(error)[:120]})"
            ) from error
        return potential

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that build this potential again."""
        return {"num_bytes": len(self.program)}

    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) in Ha (...) of protons (..., N, 3) in bohr; see `Potential.energy`."""
        self.check(z, cell)
        if is_transformed(z):
            raise NotImplementedError("torch.func does not apply to an exported program: use the built-in flow with it")
        scale = torch.ones_like(z[..., 0, 0]) if dilation is None else dilation
        positions = (z * scale[..., None, None]).reshape(-1, *z.shape[-2:])
        lengths = (cell.length * scale).expand(z.shape[:-2]).reshape(-1)
        return self._run(z.device)(positions, lengths).reshape(z.shape[:-2])

    def _run(self, device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
        """The program as a function on a device, read when it is first needed."""
        if not self._module:
            content = io.BytesIO(self.program.cpu().numpy().tobytes())
            program = torch.export.load(content)
            if len(program.graph_signature.user_outputs) != 1:
                raise ValueError("it gives more than energies: export it without forces")
            self._module.append(program.module().requires_grad_(False))
        return self._module[0].to(device)

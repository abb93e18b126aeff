"""A SchNetPack SchNet plus the repulsion of close protons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.radial import GaussianBasis, cosine_switch, quintic_switch
from lightning_vfe.models.potential.schnetpack_import import schnet_of, schnetpack
from lightning_vfe.models.potential.schnetpack_model import read_schnetpack_model
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import NeighborList, find_pairs

HYDROGEN = 1


class SchNetPotential(Potential):
    """E = sum_i [e_0 + e_1 SchNet_i(z)] + sum over pairs of the screened repulsion (YukawaPotential).

    SchNet_i is the output network of SchNetPack's SchNet for atom i (K. T. Schuett et al., J. Chem. Phys. 148, 241722
    (2018)), with three changes, which a model read from a SchNetPack file does not have:

    - its input is d = (r^4 + a^4)^(1/4) instead of the distance r, so that its force vanishes like r^3 inside the core
      a, where there are no labels. SchNet is bounded there, and the repulsion exp(-r/l)/r dominates;
    - the messages end at the cutoff by a quintic switch, twice continuously differentiable, not by a cosine;
    - all periodic images within the cutoff take part, also beyond L/2, and a proton's own ones.

    Args:
        cutoff: range of messages and of the repulsion in bohr; it may exceed L/2.
        num_features: features of an atom.
        num_interactions: interaction blocks.
        num_radial: Gaussians that expand the distance.
        num_filters: width of the convolutions; num_features where left out.
        core_radius: a in bohr; 0 for the plain distance.
        switch: "quintic", or "cosine" as in SchNetPack.
        activation: "shifted_softplus", "softplus", "silu" or "tanh", of the interaction blocks.
        output_layers: widths of the output network's hidden layers; one of num_features / 2 where left out.
        output_activation: activation of these layers.
        yukawa_strength: strength A of the repulsion: 1 for bare protons, 0 for none.
        yukawa_length: its screening length l in bohr.
        energy_per_atom: e_0 in Ha.
        energy_scale: e_1 in Ha.

    Raises:
        ValueError: an argument is out of range.
    """

    cutoff: float
    energy_per_atom: Tensor
    energy_scale: Tensor

    def __init__(
        self,
        cutoff: float = 4.0,
        num_features: int = 64,
        num_interactions: int = 3,
        num_radial: int = 20,
        num_filters: int | None = None,
        core_radius: float = 0.6,
        switch: str = "quintic",
        activation: str = "shifted_softplus",
        output_layers: Sequence[int] | None = None,
        output_activation: str = "silu",
        yukawa_strength: float = 1.0,
        yukawa_length: float = 0.7,
        energy_per_atom: float = 0.0,
        energy_scale: float = 1.0,
    ) -> None:
        super().__init__()
        num_filters = num_features if num_filters is None else num_filters
        output_layers = (
            [max(1, num_features // 2)] if output_layers is None else [int(width) for width in output_layers]
        )
        if not (yukawa_strength >= 0 and yukawa_length > 0):
            raise SettingError(
                "yukawa_strength",
                yukawa_strength,
                f"must not be negative, and potential.yukawa_length = {yukawa_length!r} must be positive",
                "the repulsion of bare protons has 1.0 and 0.7 bohr",
            )
        self.repulsion = YukawaPotential(yukawa_strength, yukawa_length, cutoff)
        _check_sizes(num_features, num_interactions, num_radial, num_filters, *output_layers)
        if not 0.0 <= core_radius < cutoff:
            raise SettingError("core_radius", core_radius, "must be from 0 to the cutoff, for example 0.6 bohr")
        if switch not in ("quintic", "cosine"):
            raise SettingError("switch", switch, "must be quintic or cosine")
        self.cutoff, self.core_radius, self.switch = float(cutoff), float(core_radius), switch
        self.settings = {
            "cutoff": self.cutoff,
            "num_features": num_features,
            "num_interactions": num_interactions,
            "num_radial": num_radial,
            "num_filters": num_filters,
            "core_radius": self.core_radius,
            "switch": switch,
            "activation": activation,
            "output_layers": output_layers,
            "output_activation": output_activation,
            "yukawa_strength": self.repulsion.strength,
            "yukawa_length": self.repulsion.screening_length,
        }
        """The arguments that build this network again; e_0 and e_1 are buffers."""
        library = schnetpack()
        self.representation = schnet_of(
            HYDROGEN + 1,
            num_features,
            n_interactions=num_interactions,
            radial_basis=GaussianBasis(num_radial, self.core_radius, self.cutoff),
            cutoff_fn=_Cutoff(self.cutoff),
            n_filters=num_filters,
            activation=_activation("activation", activation),
        )
        self.output = library.nn.build_mlp(
            num_features,
            1,
            n_hidden=output_layers,
            n_layers=len(output_layers) + 1,
            activation=_activation("output_activation", output_activation),
        )
        self.register_buffer("energy_per_atom", torch.tensor(float(energy_per_atom)))
        self.register_buffer("energy_scale", torch.tensor(float(energy_scale)))

    @classmethod
    def from_schnetpack(
        cls,
        path: str,
        position_unit: str,
        energy_unit: str,
        energy_key: str = "energy",
        yukawa_strength: float = 0.0,
        yukawa_length: float = 0.7,
    ) -> SchNetPotential:
        """Read the model file that SchNetPack's training writes (`best_model`).

        The file does not contain its units, so that they are arguments. The potential works in Ha and bohr. Offsets and
        scales among the model's postprocessors are kept. The file is a pickle: open only files that you trust.

        Args:
            path: the file.
            position_unit: unit of the positions that it was trained with, a name in ase.units: "Ang", "Bohr", "nm".
            energy_unit: unit of its energies: "eV", "Ha", "kcal/mol", "kJ/mol".
            energy_key: name of the energy among its outputs.
            yukawa_strength: repulsion to add; 0 for a model of the whole energy.
            yukawa_length: its screening length in bohr.

        Raises:
            ValueError: the file is missing or damaged, a unit is unknown, or the model is no extensive SchNet.
        """
        settings, state = read_schnetpack_model(path, position_unit, energy_unit, energy_key)
        potential = cls(**settings, yukawa_strength=yukawa_strength, yukawa_length=yukawa_length)
        potential.load_state_dict(state)
        return potential

    def set_scale(self, mean_per_atom: float, scale: float) -> None:
        """Set e_0 and e_1, in Ha.

        Args:
            mean_per_atom: mean energy per atom of the labels after `repulsion.energy` is subtracted.
            scale: standard deviation of these energies per atom; the output of SchNet is of order one.

        Raises:
            ValueError: the scale is not positive.
        """
        if not scale > 0:
            raise SettingError("energy_scale", scale, "must be positive, in Ha, for example 0.01")
        self.energy_per_atom.fill_(mean_per_atom)
        self.energy_scale.fill_(scale)

    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) in Ha (...) of protons (..., N, 3) in bohr; see `Potential.energy`."""
        self.check(z, cell)
        return self.energy_of_pairs(find_pairs(z, cell, self.cutoff, dilation))

    def energy_of_pairs(self, pairs: NeighborList) -> Tensor:
        """E in Ha (...) of pairs that reach as far as the cutoff, or further."""
        energy = pairs.sum_atoms(self.energy_per_atom + self.energy_scale * self._outputs(pairs))
        return energy + self.repulsion.pair_energy(pairs) if self.repulsion.strength > 0 else energy

    def _outputs(self, pairs: NeighborList) -> Tensor:
        """SchNet_i of all atoms of the batch.  # (W N,)"""
        switch = self._switched(pairs.squared.sqrt()).unsqueeze(-1)
        features = self.representation.radial_basis((pairs.squared.square() + self.core_radius**4).sqrt().sqrt())
        atoms = self.representation.embedding.weight[HYDROGEN].expand(pairs.total_atoms, -1)  # (W N, F)
        for interaction in self.representation.interactions:
            filters = interaction.filter_network(features) * switch
            atoms = atoms + interaction.f2out(pairs.exchange(interaction.in2f(atoms), filters))
        outputs: Tensor = self.output(atoms).squeeze(-1)
        return outputs

    def _switched(self, distance: Tensor) -> Tensor:
        """The switch of the messages at distances (E,) in bohr."""
        if self.switch == "cosine":
            return cosine_switch(distance, self.cutoff)
        return quintic_switch(distance, 0.0, self.cutoff)


class _Cutoff(nn.Module):
    """Holds the cutoff where SchNetPack's SchNet looks for it; the switch belongs to the potential."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff


def _activation(key: str, name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "shifted_softplus": schnetpack().nn.shifted_softplus,
        "softplus": nn.functional.softplus,
        "silu": nn.functional.silu,
        "tanh": torch.tanh,
    }
    if name not in functions:
        raise SettingError(key, name, f"must be one of {', '.join(functions)}")
    return functions[name]


def _check_sizes(num_features: int, num_interactions: int, num_radial: int, *widths: int) -> None:
    """All layers need a width, and the radial basis two ends."""
    least = {
        "num_features": (num_features, 1),
        "num_interactions": (num_interactions, 1),
        "num_radial": (num_radial, 2),
    }
    least |= {"num_filters or output_layers": (min(widths), 1)}
    for key, (size, smallest) in least.items():
        if size < smallest:
            raise SettingError(key, size, f"must be {smallest} at least", "usual are 64, 3 and 20")

"""Read a model file that SchNetPack's training wrote, and convert it to Ha and bohr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ase import units
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.schnetpack_import import schnetpack

HYDROGEN = 1


def read_schnetpack_model(
    path: str, position_unit: str, energy_unit: str, energy_key: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and state of the SchNetPotential that equals the model, without repulsion.

    The distances enter through Gaussians and the cutoff only: their lengths are multiplied by the unit, and the
    positions then stay in bohr. Scales and offsets of the energy become e_1 and e_0.

    Args:
        path: the file.
        position_unit: a name in ase.units.
        energy_unit: a name in ase.units, or two with a slash between: "kcal/mol".
        energy_key: name of the energy among the outputs.

    Raises:
        ValueError: the file cannot be read, a unit is unknown, or the model is no extensive SchNet.
    """
    # float32 numbers are exact in float64, so that conversion loses nothing
    length = unit_value("position_unit", position_unit) / units.Bohr
    energy = unit_value("energy_unit", energy_unit) / units.Hartree
    model = _load(path)
    network = model.representation
    _require_types(path, network)
    head = _energy_head(path, model, energy_key)
    layers = list(head.outnet)
    settings = {
        "cutoff": float(network.cutoff_fn.cutoff) * length,
        "num_features": network.n_atom_basis,
        "num_interactions": len(network.interactions),
        "num_radial": network.radial_basis.n_rbf,
        "num_filters": network.n_filters,
        "core_radius": 0.0,
        "switch": "cosine",
        "activation": _activation_name(path, network.interactions[0].filter_network[0].activation),
        "output_layers": [layer.out_features for layer in layers[:-1]],
        "output_activation": _activation_name(path, layers[0].activation) if len(layers) > 1 else "silu",
    }
    scale, offset = _postprocessing(path, model, energy_key)
    state = {f"representation.{name}": value for name, value in network.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.startswith("representation.cutoff_fn.")}
    embedding = "representation.embedding.weight"
    state[embedding] = state[embedding][: HYDROGEN + 1]
    for name in ("offsets", "widths"):
        state[f"representation.radial_basis.{name}"] = state[f"representation.radial_basis.{name}"].double() * length
    state |= {f"output.{name}": value for name, value in head.outnet.state_dict().items()}
    state |= {"energy_scale": torch.tensor(scale * energy), "energy_per_atom": torch.tensor(offset * energy)}
    return settings, state


def unit_value(key: str, unit: str) -> float:
    """The unit in ase's units, eV and angstrom; "kcal/mol" divides.

    Raises:
        ValueError: the unit is unknown.
    """
    known = [name.strip() for name in str(unit).split("/")]
    values = [getattr(units, name, None) for name in known]
    if not all(isinstance(value, float | int) for value in values):
        raise SettingError(key, unit, "is not in ase.units", "give Ang, Bohr or nm and eV, Ha or kcal/mol")
    result = float(values[0])  # type: ignore[arg-type]
    for value in values[1:]:
        result /= float(value)  # type: ignore[arg-type]
    return result


def _load(path: str) -> Any:
    library = schnetpack()
    if not Path(path).is_file():
        raise SettingError("path", path, ": no such file", "give the best_model that SchNetPack's training wrote")
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise SettingError("path", path, f"is not a model file of SchNetPack: {reason}") from error
    if not isinstance(model, library.model.NeuralNetworkPotential):
        raise SettingError(
            "path",
            path,
            f"holds a {type(model).__name__}, not SchNetPack's NeuralNetworkPotential",
            "give the best_model of its run, not a checkpoint",
        )
    return model


def _require_types(path: str, network: Any) -> None:
    """Refuse what this package does not compute."""
    library = schnetpack()
    wanted = {
        "representation": (network, library.representation.SchNet),
        "radial basis": (getattr(network, "radial_basis", None), library.nn.GaussianRBF),
        "cutoff function": (getattr(network, "cutoff_fn", None), library.nn.CosineCutoff),
    }
    for part, (found, kind) in wanted.items():
        if type(found) is not kind:
            raise SettingError(
                "path", path, f": its {part} is {type(found).__name__}", f"only {kind.__name__} can be read"
            )


def _energy_head(path: str, model: Any, energy_key: str) -> Any:
    """The output module that gives the energy as a sum over atoms."""
    atomwise = schnetpack().atomistic.Atomwise
    heads = {module.output_key: module for module in model.output_modules if isinstance(module, atomwise)}
    if energy_key not in heads:
        raise SettingError("energy_key", energy_key, f": {path} has {sorted(heads)}", "set one of them")
    if heads[energy_key].aggregation_mode != "sum":
        raise SettingError("path", path, ": its energy is no sum over atoms", "train with aggregation_mode=sum")
    return heads[energy_key]


def _postprocessing(path: str, model: Any, energy_key: str) -> tuple[float, float]:
    """Scale and offset per hydrogen atom that the model's postprocessors apply, in its own unit."""
    transform = schnetpack().transform
    scale, offset = 1.0, 0.0
    for step in model.postprocessors if model.do_postprocessing else ():
        if isinstance(step, transform.AddOffsets) and step._property == energy_key and step.is_extensive:
            offset += step.add_mean * float(step.mean) + step.add_atomrefs * float(step.atomref.flatten()[HYDROGEN])
        elif isinstance(step, transform.ScaleProperty) and step.input_key == step.output_key == energy_key:
            scale, offset = scale * float(step.scale), offset * float(step.scale)
        elif not isinstance(step, transform.CastMap):
            raise SettingError("path", path, f": cannot read its postprocessor {type(step).__name__}")
    return scale, offset


def _activation_name(path: str, function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__.lower())
    if name not in ("shifted_softplus", "softplus", "silu", "tanh"):
        raise SettingError("path", path, f": cannot read its activation {name}", "shifted_softplus, silu can")
    return name

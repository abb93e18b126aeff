"""Potentials in files, and their hash."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.files import save_tensors
from lightning_vfe.models.potential.ase_potential import ASEPotential
from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.models.potential.yukawa import YukawaPotential

FORMAT = "lightning_vfe potential 1"
KINDS: dict[str, type[Potential]] = {"yukawa": YukawaPotential, "schnet": SchNetPotential, "ase": ASEPotential}
"""Classes whose potentials can be stored, by the name in the file; `register_potential` adds to them."""
REQUIRED_METADATA = ("rs_range", "temperature_kelvin", "label")


def register_potential(kind: str, class_: type[Potential]) -> None:
    """Allow the potentials of a class to be stored in files, so that they can be the base of a run.

    The class is built again by its `settings`, a property with the plain arguments of its constructor, and its
    state_dict. The program that reads such a file registers the class first.

    Args:
        kind: name in the file.
        class_: the class.

    Raises:
        ValueError: the name stands for another class, or the class has no settings.
    """
    if KINDS.get(kind, class_) is not class_ or kind == "delta":
        raise SettingError("kind", kind, "stands for another class of potentials", "choose another name")
    if not hasattr(class_, "settings"):
        raise ValueError(f"{class_.__name__} has no property `settings`, the plain arguments of its constructor")
    KINDS[kind] = class_


def save_potential(potential: Potential, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write a potential with its metadata, as one torch file of plain tensors and dictionaries.

    Args:
        potential: of a registered class, or a DeltaPotential of two such.
        path: the file; an old one is replaced only once the new one is complete.
        metadata: plain values that JSON can store; at least "rs_range" [lo, hi] in bohr, "temperature_kelvin", a number
            or the [lo, hi] of a region of states, and "label", the provenance of the training labels.

    Raises:
        ValueError: the metadata is incomplete or not plain, or the potential is of another kind.
    """
    missing = [key for key in REQUIRED_METADATA if key not in metadata]
    if missing:
        raise SettingError("metadata", sorted(metadata), f"lacks {missing}", f"give {list(REQUIRED_METADATA)}")
    try:
        plain = json.loads(json.dumps(metadata))
        _rs_range(plain)
    except (TypeError, ValueError) as error:
        raise SettingError("metadata", metadata, f"is unusable: {error}") from error
    content = {
        "format": FORMAT,
        "metadata": plain,
        "hash": potential_hash(potential),
        "potential": _describe(potential),
    }
    save_tensors(content, path)


def load_potential(path: str | Path) -> tuple[Potential, dict[str, Any]]:
    """Read a potential that `save_potential` wrote; it then refuses states outside those of its labels.

    Parameters in a lower precision than torch's default are raised to it, which changes neither energies nor hash.

    Args:
        path: the file.

    Returns:
        The potential, in evaluation mode on the CPU, and its metadata.

    Raises:
        ValueError: the file is missing, damaged, or of another kind.
    """
    if not Path(path).is_file():
        raise SettingError(
            "path",
            path,
            ": no such file",
            "give the path that the file has now, or train a potential with lightning-vfe fit",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript module, before it is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _unreadable(path)
    try:
        potential, metadata = _build(content["potential"]), content["metadata"]
        potential.rs_range = _rs_range(metadata)
        if isinstance(temperatures := metadata["temperature_kelvin"], list):
            potential.temperature_range = (float(min(temperatures)), float(max(temperatures)))
        intact = potential_hash(potential) == content["hash"]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingError("path", path, f"is damaged ({reason})", "train the potential again") from error
    if not intact:
        raise SettingError("path", path, "is damaged: its parameters do not have the stored hash", "train it again")
    return potential.eval(), metadata


def potential_hash(potential: Potential) -> str:
    """16 hexadecimal digits over kind, settings and parameters, independent of device and of a wider type.

    Raises:
        ValueError: the potential is of a kind that is not registered.
    """
    digest = hashlib.sha256()
    _update(digest, _describe(potential))
    return digest.hexdigest()[:16]


def _describe(potential: Potential) -> dict[str, Any]:
    """Kind, settings and state; of a sum, the descriptions of its parts."""
    if isinstance(potential, DeltaPotential):
        parts = {"baseline": _describe(potential.baseline), "correction": _describe(potential.correction)}
        return {"kind": "delta", "parts": parts}
    for kind, class_ in KINDS.items():
        if type(potential) is class_:
            state = {name: value.detach().cpu().clone() for name, value in potential.state_dict().items()}
            settings: Any = getattr(potential, "settings")  # noqa: B009  not every Potential can be stored
            return {"kind": kind, "settings": dict(settings), "state": state}
    known = ", ".join([*KINDS, "delta"])
    raise ValueError(
        f"a {type(potential).__name__} cannot be stored; the kinds {known} can, and those of register_potential"
    )


def _build(description: dict[str, Any]) -> Potential:
    """The potential of a description."""
    if description["kind"] == "delta":
        return DeltaPotential(**{name: _build(part) for name, part in description["parts"].items()})
    kind, settings = description["kind"], description["settings"]
    if kind not in KINDS:
        raise ValueError(f"it is of the kind {kind}, which no class here has: call register_potential first")
    if kind == "ase" and not str(settings["calculator"]).startswith("ase."):
        raise ValueError(f"it names the class {settings['calculator']}, which is not one of ASE's own")
    potential = KINDS[kind](**settings)
    types = {value.dtype for value in description["state"].values()}
    for dtype in types:
        potential.to(torch.promote_types(dtype, torch.get_default_dtype()))
    potential.load_state_dict(description["state"])
    return potential


def _update(digest: Any, description: dict[str, Any]) -> None:
    """Feed a description in a fixed order; numbers as float64, in which those of a narrower type are exact."""
    digest.update(json.dumps([description["kind"], description.get("settings")], sort_keys=True).encode())
    for name, value in sorted(description.get("state", {}).items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.to(torch.float64).contiguous().numpy().astype("<f8").tobytes())
    for name, part in sorted(description.get("parts", {}).items()):
        digest.update(name.encode())
        _update(digest, part)


def _rs_range(metadata: dict[str, Any]) -> tuple[float, float]:
    """The densities of the training labels."""
    low, high = (float(rs) for rs in metadata["rs_range"])
    if not 0 < low <= high:
        raise SettingError("rs_range", metadata["rs_range"], "must be [lo, hi] in bohr with 0 < lo <= hi")
    return low, high


def _unreadable(path: str | Path) -> SettingError:
    remedy = (
        "write it with lightning-vfe fit, or convert a SchNetPack model with SchNetPotential.from_schnetpack and "
        "save_potential"
    )
    return SettingError("path", path, "is damaged or not of this package", remedy)

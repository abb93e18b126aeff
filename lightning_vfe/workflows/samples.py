"""Samples of p(x) with energies and weights: a table, ASE's frames, and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from ase import Atoms
from ase.io import write as write_atoms

from lightning_vfe.files import whole_file, write_json
from lightning_vfe.workflows.sample_files import UNITS, ase_frames, description, write_walkers
from lightning_vfe.workflows.state_samples import StateSamples

FORCES_NOTE = (
    "hellmann_feynman_forces are -<d(V_pp + V_pe)/dx> in |psi|^2: derivatives of E_psi only where psi is at its minimum"
)


@dataclass(frozen=True)
class Samples:
    """What `sample` gives.

    Attributes:
        states: samples of each state point.
        spacing: sweeps between two configurations of a chain.
        autocorrelation_time: of the chains, in sweeps.
        reasons: what is not to be trusted; empty if all is.
        provenance: run, step, seed and settings.
        file: the extxyz file; None where nothing was written.
    """

    states: tuple[StateSamples, ...]
    spacing: int
    autocorrelation_time: float
    reasons: tuple[str, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each configuration, energies in Ha of the whole cell."""
        blocks = []
        for each in self.states:
            columns: dict[str, Any] = {"rs": each.point.rs, "temperature_kelvin": each.point.temperature_kelvin}
            columns |= {"log_prob": each.log_prob, "energy": each.energy, "energy_error": each.energy_error}
            if each.ml_energy is not None:
                columns["ml_energy"] = each.ml_energy
            blocks.append(pd.DataFrame(columns | {"log_weight": each.weights.log_weight}))
        return pd.concat(blocks, ignore_index=True)

    def atoms(self) -> list[Atoms]:
        """The configurations as ASE has them, with E_psi in eV as energy and the rest in `info` and `arrays`."""
        return [frame for each in self.states for frame in ase_frames(each)]

    def write(self, folder: str | Path) -> Path:
        """Write samples.extxyz, samples.json and, with electrons, walkers.h5 into a folder; returns the first."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        with whole_file(home / "samples.extxyz") as stream:
            write_atoms(stream, self.atoms(), format="extxyz")
        content = self.provenance | {"units": UNITS, "spacing_sweeps": self.spacing, "reasons": list(self.reasons)}
        content["autocorrelation_time_sweeps"] = self.autocorrelation_time
        content["states"] = [description(each) for each in self.states]
        if any(each.forces is not None for each in self.states):
            content["forces"] = FORCES_NOTE
        if any(each.electrons is not None for each in self.states):
            write_walkers(home / "walkers.h5", self.states)
        write_json(home / "samples.json", content)
        return home / "samples.extxyz"

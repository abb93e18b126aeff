"""What `log-z` needs, built and checked from its config."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import SettingError
from lightning_vfe.files import checksum
from lightning_vfe.log_z.result import WindowReport
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.models.base.log_z import log_z_file, read_entries
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential, potential_hash
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.progress import Begin
from lightning_vfe.resources import data_file
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.memory import check_memory
from lightning_vfe.workflows.paths import check_file
from lightning_vfe.workflows.run_config import write_config
from lightning_vfe.workflows.sweep_files import SweepFiles
from lightning_vfe.workflows.system import strata_of

QUALITY = ("num_windows", "num_samples", "least_overlap", "largest_r_hat")
"""What `quality` gives."""
ENDING = ("max_sweeps", "target_error_per_atom", "num_bootstraps", "_target_")
"""Settings of log_z that say when the sampling ends, and not what it samples."""


@dataclass(frozen=True)
class Prepared:
    """What an integration needs, checked; the run folder is made.

    Attributes:
        system: the protons.
        points: the state points.
        potential: whose ln Z is wanted.
        metadata: of the potential.
        yukawa: the first stop of the path.
        settings: of the integration.
        device: where the chains run.
        goal: file of the entries.
        journal: keeps the samples in the run folder.
    """

    system: System
    points: tuple[StatePoint, ...]
    potential: Potential
    metadata: Mapping[str, Any]
    yukawa: Potential
    settings: LogZSettings
    device: str
    goal: Path
    journal: SweepFiles

    def provenance(self, config: DictConfig, command: str, started: float) -> dict[str, Any]:
        """How ln Z was computed; `started` is the monotonic time of the start."""
        return {
            "command": command,
            "code_version": __version__,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seconds": round(time.monotonic() - started, 1),
            "potential_temperature_kelvin": self.metadata["temperature_kelvin"],
            "settings": OmegaConf.to_container(config.log_z, resolve=True),
        }

    def finish(self, converged: bool) -> None:
        """Delete the samples; those of a result that has not converged stay, for a larger log_z.max_sweeps."""
        if converged:
            self.journal.remove()


def prepare(config: DictConfig, begin: Begin) -> Prepared:
    """Build and check the parts of `configs/log-z.yaml`; arguments and errors as of `log_z_with`."""
    system, file = System(config.system.num_atoms, config.system.nucleus), data_file(config.potential.path)
    check_memory(config.system.num_atoms)
    points = strata_of(config).points
    potential, metadata = load_potential(file)
    goal = log_z_file(file) if config.log_z_path is None else Path(config.log_z_path)
    yukawa = instantiate(config.yukawa)
    for point in points:
        cell = point.cell(system.num_atoms)
        potential.check(torch.zeros(cell.num_atoms, 3), cell)
        potential.check_temperature(point.temperature_kelvin)
        with key_errors(config, "yukawa"):
            yukawa.check(torch.zeros(cell.num_atoms, 3), cell)
    check_file("log_z_path", goal)
    read_entries(goal)  # a damaged file is to be known before the work
    if config.num_samples < 0:
        raise SettingError("num_samples", config.num_samples, "must not be negative", "0 leaves E, P and g(r) out")
    settings, device = instantiate(config.log_z), _device(config.device)
    begin(config, _description(system, points, config, settings, device))
    run_dir = Path(config.run_dir)
    (run_dir / "figures").mkdir(parents=True, exist_ok=True)
    write_config(run_dir, config)
    yukawa, potential = (model.to(device).requires_grad_(False) for model in (yukawa, potential))
    journal = SweepFiles(run_dir / "sampling" / _fingerprint(config, potential, points, device))
    return Prepared(system, points, potential, metadata, yukawa, settings, device, goal, journal)


def _description(
    system: System, points: Sequence[StatePoint], config: DictConfig, settings: LogZSettings, device: str
) -> dict[str, str]:
    """What the banner says."""
    return {
        "system": f"{system.name}, N = {system.num_atoms}, {'; '.join(map(str, points))}",
        "potential": str(config.potential.path),
        "chains": f"{settings.num_chains} in each window, at most {settings.max_sweeps} sweeps ({device})",
        "wanted error": f"{settings.target_error_per_atom:g} kT per atom",
    }


def _fingerprint(config: DictConfig, potential: Potential, points: Sequence[StatePoint], device: str) -> str:
    """Name of all that the samples depend on: only the same command resumes them."""
    chains: Any = OmegaConf.to_container(config.log_z, resolve=True)
    chains = {key: value for key, value in chains.items() if key not in ENDING}
    yukawa: Any = OmegaConf.to_container(config.yukawa, resolve=True)
    states = [[point.rs, point.temperature_kelvin] for point in points]
    kept = [potential_hash(potential), config.system.num_atoms, states, chains, yukawa, config.dtype, device]
    return checksum({"samples": kept}).removeprefix("sha256-")


def quality(windows: Sequence[WindowReport]) -> dict[str, Any]:
    """Numbers of the windows that tell how good an integration is."""
    samples, overlaps = sum(window.num_samples for window in windows), [w.overlap_with_next or 1.0 for w in windows]
    numbers = len(windows), samples, round(float(min(overlaps)), 4), round(max(w.r_hat for w in windows), 4)
    return dict(zip(QUALITY, numbers, strict=True))


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError("device", name, "does not exist", "there is: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", "cuda", "is not available here", "set device=cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name

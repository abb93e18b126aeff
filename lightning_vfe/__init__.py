"""Variational free energy of dense hydrogen with PyTorch Lightning.

A notebook, a program or a config needs the names below only. They are imported when they are first used, so that
`import lightning_vfe` is fast. Files of the package may move; these names stay. `__init__.pyi` lists them for type
checkers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "physics.system": ("System",),
    "physics.state_point": ("StatePoint",),
    "physics.strata": ("Strata",),
    "models.wavefunction.wavefunction": ("GeminalWavefunction",),
    "models.wavefunction.jellium": ("JelliumWavefunction",),
    "models.flow.equivariant_flow": ("EquivariantFlow",),
    "models.base.uniform": ("UniformBase",),
    "models.base.boltzmann": ("BoltzmannBase",),
    "models.proton_density": ("ProtonDensity",),
    "models.potential.potential": ("Potential",),
    "models.potential.schnet": ("SchNetPotential",),
    "models.potential.ase_potential": ("ASEPotential",),
    "models.potential.storage": ("load_potential", "save_potential"),
    "sampling.nested": ("NestedSampler",),
    "state.variational_state": ("VariationalState",),
    "workflows.load": ("load",),
    "workflows.verbs": ("compute_log_z", "fit", "label", "sample", "test", "validate"),
    "workflows.report": ("report",),
    "workflows.eos": ("eos",),
    "errors": ("SettingError",),
    "training.variational.module": ("VariationalFreeEnergy",),
    "training.variational.datamodule": ("MCMCDataModule",),
    "training.variational.optimizers": ("NaturalGradient",),
    "training.torch_optimizer": ("TorchOptimizer",),
}
_PART_HOMES = {
    "physics.cell": ("PeriodicCell",),
    "physics.ewald": ("Ewald",),
    "physics.state_point": ("WalkerStates",),
    "physics.strata": ("reference_point",),
    "models.wavefunction.molecular": ("MolecularWavefunction",),
    "models.potential.yukawa": ("YukawaPotential",),
    "models.potential.storage": ("register_potential",),
    "models.potential.delta": ("DeltaPotential",),
    "sampling.proposals": (
        "GaussianProposal",
        "HamiltonianProposal",
        "LangevinProposal",
    ),
    "workflows.load": ("LoadedRun",),
    "analysis.eos.hugoniot": ("InitialState",),
    "workflows.sample": ("SampleSettings",),
    "training.variational.optimizers": ("Adam",),
    "models.potential.calculator": ("PotentialCalculator",),
    "models.potential.export": ("export_potential",),
    "models.potential.exported": ("ExportedPotential",),
}
"""Parts that are seldom named: the cell and its Coulomb energies; states of other points; wavefunctions, moves,
potentials, optimizers of your choice."""
_CONTRACT_HOMES = {
    "models.contracts": ("Base", "Flow", "PotentialEnergy", "Wavefunction"),
    "sampling.proposals": ("Proposal",),
    "sampling.sampler": ("Sampler",),
    "training.variational.optimizers": ("OptimizerSettings",),
}
"""What own parts must give, for annotations."""
_CONFIG_HOMES = {
    "labels.committee": ("CommitteeSettings",),
    "sampling.boltzmann": ("ChainSettings",),
    "log_z.settings": ("LogZSettings",),
    "training.variational.callbacks": (
        "ProgressBar",
        "WriteSummary",
    ),
    "training.variational.nan_guard": ("NaNGuard",),
    "training.flow_mle.datamodule": ("ConfigurationDataModule",),
    "training.flow_mle.sources": (
        "ChainSource",
        "DatabaseSource",
        "TrajectorySource",
        "boltzmann_density",
    ),
    "training.flow_mle.module": ("FlowMaximumLikelihood",),
    "training.flow_mle.report": ("FlowReport",),
    "training.run.loggers": ("MetricsCSVLogger",),
    "training.potential.datamodule": ("LabelDataModule",),
    "training.potential.committee": ("CommitteeTrainer",),
    "training.potential.loss": ("PotentialLoss",),
    "training.potential.module": (
        "PotentialModule",
        "stored_potential",
    ),
    "training.torch_optimizer": ("half_cosine",),
    "training.potential.report": ("PotentialReport",),
    "training.run.run_folder": ("LastCheckpoint",),
    "training.run.step_bar": ("StepBar",),
}
"""Names that configs use besides: as stable as the others, though seldom needed elsewhere."""
_HOME_OF = {
    name: home
    for homes in (_HOMES, _PART_HOMES, _CONTRACT_HOMES, _CONFIG_HOMES)
    for home, names in homes.items()
    for name in names
}

__all__ = [*(name for names in _HOMES.values() for name in names), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name from its file."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lightning_vfe' has no attribute {name!r}; the public names are in __all__")
    value = getattr(importlib.import_module(f"lightning_vfe.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

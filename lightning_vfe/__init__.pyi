from lightning_vfe.errors import SettingError as SettingError
from lightning_vfe.models.base.boltzmann import BoltzmannBase as BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase as UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow as EquivariantFlow
from lightning_vfe.models.potential.ase_potential import ASEPotential as ASEPotential
from lightning_vfe.models.potential.delta import DeltaPotential as DeltaPotential
from lightning_vfe.models.potential.potential import Potential as Potential
from lightning_vfe.models.potential.schnet import SchNetPotential as SchNetPotential
from lightning_vfe.models.potential.storage import load_potential as load_potential
from lightning_vfe.models.potential.storage import register_potential as register_potential
from lightning_vfe.models.potential.storage import save_potential as save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential as YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity as ProtonDensity
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction as GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell as PeriodicCell
from lightning_vfe.physics.ewald import Ewald as Ewald
from lightning_vfe.physics.state_point import StatePoint as StatePoint
from lightning_vfe.physics.state_point import WalkerStates as WalkerStates
from lightning_vfe.physics.strata import Strata as Strata
from lightning_vfe.physics.strata import reference_point as reference_point
from lightning_vfe.physics.system import System as System
from lightning_vfe.sampling.nested import NestedSampler as NestedSampler
from lightning_vfe.state.variational_state import VariationalState as VariationalState
from lightning_vfe.training.torch_optimizer import TorchOptimizer as TorchOptimizer
from lightning_vfe.training.variational.datamodule import MCMCDataModule as MCMCDataModule
from lightning_vfe.training.variational.module import VariationalFreeEnergy as VariationalFreeEnergy
from lightning_vfe.training.variational.optimizers import Adam as Adam
from lightning_vfe.training.variational.optimizers import NaturalGradient as NaturalGradient
from lightning_vfe.workflows.load import LoadedRun as LoadedRun
from lightning_vfe.workflows.load import load as load
from lightning_vfe.workflows.report import report as report
from lightning_vfe.workflows.verbs import compute_log_z as compute_log_z
from lightning_vfe.workflows.verbs import fit as fit
from lightning_vfe.workflows.verbs import label as label
from lightning_vfe.workflows.verbs import test as test

__version__: str
__all__: list[str]

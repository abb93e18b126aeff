"""What the banner of a variational run says: system, walkers, networks, and the cost of an update."""

from __future__ import annotations

from torch import nn

from lightning_vfe.models.contracts import Flow
from lightning_vfe.optim.cost import update_cost
from lightning_vfe.physics.local_energy import takes_nested_route
from lightning_vfe.physics.strata import Strata
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.optimizers import NaturalGradient, OptimizerSettings

Rows = list[tuple[str, str]]


def describe_state(state: VariationalState, num_processes: int) -> Rows:
    """System, state points, twists, walkers and sizes of the networks."""
    strata, counts = state.strata, state.counts
    kind = f"{state.system.name}, N = {state.system.num_atoms}"
    if strata.num_states == 1:
        (point,) = strata.points
        kind += f", rs = {point.rs:g}, L = {point.cell(state.system.num_atoms).length:.4f} bohr"
    rows = [("system", kind)]
    if strata.num_states > 1:
        rows.append(("states", f"{strata.num_states}: {'; '.join(map(str, strata.points))}"))
    rows.append(("protons", _protons(state)))
    rows.append(("twists", _twists(strata)))
    walkers = f"{counts.num_proton_walkers} proton x {counts.num_electron_walkers} electron"
    rows.append(("walkers", f"{walkers}, in {counts.num_groups} groups"))
    flow = "no flow, " if state.proton_density is None else f"flow {_size(state.proton_density.flow)}, "
    rows.append(("parameters", f"{flow}wavefunction {_size(state.wavefunction)}"))
    if takes_nested_route(state.wavefunction):
        rows.append(("kinetic energy", "by nested differentiation, several times slower than by forward rules"))
    if num_processes > 1:
        groups = counts.share(num_processes)
        each = counts.num_proton_walkers // counts.num_groups
        rows.append(("of each process", f"{groups} walker group{'s' * (groups > 1)} of {each} proton walkers"))
    return rows


def _protons(state: VariationalState) -> str:
    if not state.system.num_protons:
        return "none: electrons in a uniform background"
    if state.is_fixed:
        return f"fixed, structure {state.structure}"
    point = state.strata.points[0]
    return "sampled" + (f" at T = {point.temperature_kelvin:g} K" if state.strata.num_states == 1 else "")


def _twists(strata: Strata) -> str:
    twists = strata.twists
    if twists.is_random:
        return "random, drawn in every sweep"
    if twists.is_gamma:
        return "1 (Gamma)"
    return f"{len(twists)}" + ("" if twists.symmetry == "none" else f", reduced by {twists.symmetry}")


def describe_updates(settings: OptimizerSettings, state: VariationalState, num_processes: int) -> Rows:
    """Size, memory and messages of the natural gradient of both blocks; nothing for other optimizers."""
    if not isinstance(settings, NaturalGradient):
        return []
    protons = state.counts.num_proton_walkers
    blocks: dict[str, tuple[nn.Module, int, int]] = {
        "wavefunction": (state.wavefunction, protons * state.counts.num_electron_walkers, 2)
    }
    if state.proton_density is not None:
        blocks["flow"] = (state.proton_density, protons, 1)
    rows: Rows = []
    for name, (block, samples, components) in blocks.items():
        parameters = sum(p.numel() for p in block.parameters() if p.requires_grad)
        if not parameters:
            continue
        cost = update_cost(samples, components, parameters, num_processes, settings.space)
        sent = f", {_megabytes(cost.sent)} sent" if num_processes > 1 else ""
        system = f"{cost.size} x {cost.size} system of the {'samples' if cost.space == 'sample' else 'parameters'}"
        text = f"{name}: {system}, {_megabytes(cost.memory)} of memory{sent} a step per process"
        rows.append(("natural gradient", text))
    return rows


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.3g} MB"


def _size(model: nn.Module | Flow) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

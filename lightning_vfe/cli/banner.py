"""What a run is about, in a few lines at its start."""

from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lightning_vfe.cli.plan import Plan
from lightning_vfe.workflows.build import is_variational


def print_banner(plan: Plan, module: Any, datamodule: Any, trainer: Any) -> None:
    """Print what is computed from what by how many processes, the sizes of the networks and the run folder."""
    config = plan.config
    title = f"lightning-vfe {plan.verb}: {config.name}"
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    if is_variational(config):
        _add_variational(table, config, module)
    else:
        for name, text in (datamodule.description() | module.description()).items():
            table.add_row(name, text)
    table.add_row("processes", _processes(config, trainer))
    if plan.verb == "fit" and is_variational(config):
        for text in _updates(config, module, trainer.world_size):
            table.add_row("natural gradient", text)
    if plan.ckpt_path is not None:
        table.add_row("checkpoint", str(plan.ckpt_path))
    table.add_row("run folder", str(plan.run_dir))
    # a long path must stay in one piece
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)


def _add_variational(table: Table, config: DictConfig, module: Any) -> None:
    """System, sampling and networks of a variational run."""
    from lightning_vfe.physics.local_energy import takes_nested_route

    state, system, sampler = module.state, config.system, config.sampler
    strata, twists = state.strata, state.strata.twists
    kind = f"{state.system.name}, N = {state.system.num_atoms}"
    if strata.num_states == 1:
        (point,) = strata.points
        kind += f", rs = {point.rs:g}, L = {point.cell(state.system.num_atoms).length:.4f} bohr"
    table.add_row("system", kind)
    if strata.num_states > 1:
        table.add_row("states", f"{strata.num_states}: {'; '.join(map(str, strata.points))}")
    if state.is_fixed:
        table.add_row("protons", f"fixed, structure {system.structure}")
    else:
        temperature = f" at T = {strata.points[0].temperature_kelvin:g} K" if strata.num_states == 1 else ""
        table.add_row("protons", f"sampled{temperature}")
    table.add_row("twists", _twists(config, twists))
    walkers = f"{sampler.num_proton_walkers} proton x {sampler.num_electron_walkers} electron"
    table.add_row("walkers", f"{walkers}, in {sampler.num_groups} groups")
    flow = "no flow, " if module.proton_density is None else f"flow {_count(module.proton_density.flow)}, "
    table.add_row("parameters", f"{flow}wavefunction {_count(module.wavefunction)}")
    if takes_nested_route(module.wavefunction):
        table.add_row("kinetic energy", "by nested differentiation, several times slower than with forward rules")


def _twists(config: DictConfig, twists: Any) -> str:
    if twists.is_random:
        return "random, drawn in every sweep"
    if len(twists) == 1 and not twists.fractions.any():
        return "1 (Gamma)"
    symmetry = config.system.twist_symmetry
    return f"{len(twists)}" + ("" if symmetry == "none" else f", reduced by {symmetry}")


def _processes(config: DictConfig, trainer: Any) -> str:
    """Number of processes and what each of them owns."""
    number, device = trainer.world_size, trainer.strategy.root_device.type
    nodes = f" on {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    if number == 1 or not is_variational(config):
        return f"{number} ({device}){nodes}"
    groups, walkers = config.sampler.num_groups // number, config.sampler.num_proton_walkers // number
    plural = "s" if groups > 1 else ""
    return f"{number} ({device}){nodes}, each with {groups} walker group{plural} of {walkers // groups} proton walkers"


def _updates(config: DictConfig, module: Any, num_processes: int) -> list[str]:
    """Size, memory and messages of the natural gradient of both blocks; nothing for other optimizers."""
    from lightning_vfe.optim.cost import update_cost
    from lightning_vfe.training.variational.optimizers import NaturalGradient

    if not isinstance(module.optimizer_settings, NaturalGradient):
        return []
    sampler, space, lines = config.sampler, module.optimizer_settings.space, []
    protons = sampler.num_proton_walkers
    blocks = {"wavefunction": (module.wavefunction, protons * sampler.num_electron_walkers, 2)}
    if module.proton_density is not None:
        blocks["flow"] = (module.proton_density, protons, 1)
    for name, (block, samples, components) in blocks.items():
        parameters = sum(p.numel() for p in block.parameters() if p.requires_grad)
        if not parameters:
            continue
        cost = update_cost(samples, components, parameters, num_processes, space)
        sent = f", {_megabytes(cost.sent)} sent" if num_processes > 1 else ""
        system = f"{cost.size} x {cost.size} system of the {'samples' if cost.space == 'sample' else 'parameters'}"
        lines.append(f"{name}: {system}, {_megabytes(cost.memory)} of memory{sent} a step per process")
    return lines


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.3g} MB"


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

"""Time the flow: the plain map, its log-determinant, its gradient, the scores of all walkers, and the inverse.

    python benchmarks/bench_flow.py
    python benchmarks/bench_flow.py --dtype float32
    python benchmarks/bench_flow.py --num-steps 1 --num-layers 3
    python benchmarks/bench_flow.py --num-atoms 54 --walkers 4
    python benchmarks/bench_flow.py --device cuda --walkers 1024

Columns: processor seconds on one thread (on an accelerator, seconds of the clock), the best of a few repetitions;
flops and bytes moved; peak memory. The last line compares the log-determinant with a Jacobian taken one column at a
time: as many plain maps as there are coordinates, in forward mode about twice that.
"""

from __future__ import annotations

import argparse

import torch
from measure import add_device, describe, measure

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.chunking import keep_freed_memory
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System

TEMPERATURE_KELVIN = 6000.0


def trained_like(flow: EquivariantFlow, readout: float) -> None:
    """Parameters with which every part of the map does something, as after a training."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("readout"):
                parameter.normal_(std=readout)
            elif name.endswith("amplitude"):
                parameter.fill_(0.03)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, default=16)
    parser.add_argument("--rs", type=float, default=1.25)
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--num-blocks", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=3)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-channels", type=int, default=16)
    parser.add_argument("--readout", type=float, default=0.3, help="spread of the last weights: strength of the map")
    add_device(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    keep_freed_memory()
    torch.manual_seed(0)
    device, system = torch.device(arguments.device), System(arguments.num_atoms)
    point = StatePoint(arguments.rs, TEMPERATURE_KELVIN)
    flow = EquivariantFlow(
        system, point, arguments.num_blocks, arguments.num_steps, arguments.num_layers, arguments.num_channels
    )
    trained_like(flow, arguments.readout)
    density = ProtonDensity(UniformBase(system), flow).to(device)
    x = (point.cell(system.num_atoms).length * torch.rand(arguments.walkers, system.num_atoms, 3)).to(device)
    states = WalkerStates.at(point.rs, point.temperature_kelvin, torch.zeros(len(x), 3), like=x)
    inverse = flow.from_base(x, states)
    evaluations = arguments.num_blocks * arguments.num_steps * arguments.num_layers

    def gradient() -> None:
        density.zero_grad()
        density.log_prob(x, states).sum().backward()

    work = {
        "plain map": torch.no_grad()(lambda: flow.displacement(x, states)),
        "log-determinant": torch.no_grad()(lambda: flow.to_base(x, states)),
        "with its gradient": gradient,
        "scores": lambda: density.scores(x, states),
        "inverse": lambda: flow.from_base(x, states),
    }
    print(", ".join(f"{key} {value}" for key, value in describe(device).items()))
    print(
        f"{arguments.walkers} walkers, N = {system.num_atoms}, {evaluations} message layers, {arguments.dtype}; "
        f"inverse found for {int(inverse.converged.sum())}, root mean square of z - x {spread(inverse.x - x):.3f} bohr"
    )
    print(f"{'':<20}{'s':>9}{'Gflop':>9}{'GB':>8}{'MiB':>8}{'per map':>9}")
    costs = {}
    for name, function in work.items():
        costs[name] = cost = measure(function, device, arguments.budget)
        ratio = cost.seconds / costs["plain map"].seconds
        print(
            f"{name:<20}{cost.seconds:>9.4f}{cost.flops / 1e9:>9.3f}{cost.bytes / 1e9:>8.3f}"
            f"{cost.peak_bytes / 2**20:>8.0f}{ratio:>9.1f}",
            flush=True,
        )
    columns = 3 * system.num_atoms * costs["plain map"].seconds
    print(f"columns one at a time {columns:.4f} s, {columns / costs['log-determinant'].seconds:.1f} log-determinants")


def spread(displacement: torch.Tensor) -> float:
    """Root mean square of a component."""
    return float(displacement.square().mean().sqrt())


if __name__ == "__main__":
    main()

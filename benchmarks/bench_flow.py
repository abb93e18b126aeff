"""Time the flow: the plain map, its log-determinant with the carried Jacobian, and the gradient of that.

    python benchmarks/bench_flow.py
    python benchmarks/bench_flow.py --num-atoms 54 --walkers 4 --num-layers 1

Prints seconds on one thread, the best of a few repetitions, and ratios to the plain map and to a Jacobian taken one
column at a time (as many plain maps as there are coordinates, in forward mode about twice that).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.physics.cell import PeriodicCell


def best_time(function: Callable[[], object], repetitions: int) -> float:
    """Shortest wall time in seconds, after one call that is not counted."""
    function()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, default=16)
    parser.add_argument("--rs", type=float, default=1.25)
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--num-blocks", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=3)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-channels", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    torch.manual_seed(0)
    cell = PeriodicCell(arguments.num_atoms, arguments.rs)
    flow = EquivariantFlow(
        cell, arguments.num_blocks, arguments.num_steps, arguments.num_layers, arguments.num_channels
    )
    x = cell.length * torch.rand(arguments.walkers, cell.num_atoms, 3)
    evaluations = arguments.num_blocks * arguments.num_steps * arguments.num_layers

    def backward() -> None:
        flow.zero_grad()
        flow.to_base(x.clone().requires_grad_()).log_abs_det_dzdx.sum().backward()

    with torch.no_grad():
        plain = best_time(lambda: flow.displacement(x), arguments.repetitions)
        log_det = best_time(lambda: flow.to_base(x), arguments.repetitions)
    both = best_time(backward, arguments.repetitions)
    columns = 3 * cell.num_atoms
    print(f"{arguments.walkers} walkers, N = {cell.num_atoms}, {evaluations} message layers, {arguments.dtype}")
    print(f"plain map                {plain:8.4f} s")
    print(f"log-determinant          {log_det:8.4f} s   {log_det / plain:6.1f} x plain")
    print(f"with its gradient        {both:8.4f} s   {both / log_det:6.1f} x log-determinant")
    print(f"columns one at a time   ~{columns * plain:8.4f} s   {columns * plain / log_det:6.1f} x log-determinant")


if __name__ == "__main__":
    main()

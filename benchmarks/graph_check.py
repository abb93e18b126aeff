"""Compare electron moves that are recorded as a CUDA graph with plain ones: their chains, and the seconds of a move."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lightning_vfe.sampling import recorded
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import make_proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.variational_state import VariationalState

RULES = {"gaussian": 100, "langevin": 20, "hamiltonian": 12}
"""Moves of each rule."""
WIDTH = 0.1
"""Of the moves, in units of rs."""
SAME = 1e-4
"""Largest difference of the positions of one chain, in units of rs; a decision that differs gives far more."""


def compare_graphs(state: VariationalState, device: str, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Run each rule with and without a graph, and print a line for it.

    Args:
        state: networks and walkers on the device.
        device: nothing is compared on one that knows no graphs.
        say: takes the lines.

    Returns:
        For each rule the share of chains that differ, whether a graph was made, and seconds of a move.
    """
    found: dict[str, dict[str, float]] = {}
    if not recorded.can_record(torch.device(device)):
        return found
    for rule, num_moves in RULES.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with_graph, graph_seconds = _chain(state, rule, num_moves, device)
        with _plain():
            without, plain_seconds = _chain(state, rule, num_moves, device)
        differing = float(((with_graph - without).abs().amax((-2, -1)) > SAME).double().mean())
        failed = [str(each.message) for each in caught if "CUDA graph" in str(each.message)]
        found[rule] = {"differing": differing, "graph": not failed, "graph_s": graph_seconds, "plain_s": plain_seconds}
        seconds = f"{1e3 * graph_seconds:.2f} ms a move, plain {1e3 * plain_seconds:.2f} ms"
        say(f"{rule:<12}{'NO GRAPH' if failed else 'graph':<10}{differing:.1%} of the chains differ, {seconds}")
        for message in failed:
            say(message)
    return found


@contextmanager
def _plain() -> Iterator[None]:
    """Inside it no move is recorded."""
    before = recorded.can_record
    recorded.can_record = lambda _: False
    try:
        yield
    finally:
        recorded.can_record = before


def _chain(state: VariationalState, rule: str, num_moves: int, device: str) -> tuple[Tensor, float]:
    """Positions after moves with the same random numbers each time, and the seconds of a later move."""
    walkers, proposal = state.place(), make_proposal(rule)
    log_prob = state.electron_target()(walkers)
    start = proposal.evaluate(log_prob, walkers.electrons)
    width = torch.tensor(WIDTH, device=device, dtype=walkers.electrons.dtype)

    def chain() -> Tensor:
        random = WalkerRandom([0], 1, device)
        end, _ = metropolis(log_prob, start, proposal, width, num_moves, random, state.system.cell.wrap)
        return end.positions

    end = chain()
    _finish(device)
    began = time.monotonic()
    chain()
    _finish(device)
    return end, (time.monotonic() - began) / num_moves


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()

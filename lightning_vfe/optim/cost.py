"""What one update costs in memory and in messages, before it is made."""

from __future__ import annotations

from typing import NamedTuple

from lightning_vfe.optim.natural_gradient import chosen_space

FLOAT64 = 8


class UpdateCost(NamedTuple):
    """Of one block, for each of R processes."""

    space: str
    """sample or parameter."""
    size: int
    """Rows of the linear system."""
    memory: float
    """Bytes held at the peak: scores, their columns from all processes, and the matrix three times."""
    sent: float
    """Bytes sent in one step."""


def update_cost(num_samples: int, components: int, num_parameters: int, num_processes: int, space: str) -> UpdateCost:
    r"""Memory and messages of one block, with M samples of c components (2 for ln psi, 1 for ln p) and P parameters.

    In sample space, with m = M c rows,

        memory  8 [m P / R (1 + (R > 1)) + 3 m^2],
        sent    8 [m P (R - 1) / R^2 + (R - 1) / R (2 m^2 + 2 P)]

    (rows into columns, the sum of the matrix by a ring, the shares of the direction and the whole); in parameter space

        memory  8 [2 m P / R + 3 P^2],      sent  8 [2 (R - 1) / R P^2 + (R - 1) / R P].

    The last term of both is the direction, which the first process sends to all. Left out: what is of the size of the
    samples alone; in parameter space the means of fixed protons (one for each twist), and the averaged matrix of
    `fisher_decay`. Scores in float32 are counted like those in float64.

    Args:
        num_samples: M of all processes.
        components: c.
        num_parameters: P.
        num_processes: R.
        space: sample, parameter or auto.
    """
    rows, ranks = num_samples * components, num_processes
    chosen = chosen_space(space, rows, num_parameters)
    scores = rows * num_parameters / ranks
    if chosen == "sample":
        memory = scores * (1 + (ranks > 1)) + 3.0 * rows**2
        sent = scores * (ranks - 1) / ranks + (2.0 * rows**2 + 2.0 * num_parameters) * (ranks - 1) / ranks
        return UpdateCost(chosen, rows, FLOAT64 * memory, FLOAT64 * sent)
    memory = 2.0 * scores + 3.0 * num_parameters**2
    sent = (2.0 * num_parameters**2 + num_parameters) * (ranks - 1) / ranks
    return UpdateCost(chosen, num_parameters, FLOAT64 * memory, FLOAT64 * sent)

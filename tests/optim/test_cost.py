"""What an update is said to cost, against what it sends and holds."""

import pytest
import torch
import torch.distributed as dist

from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.cost import update_cost


def test_the_smaller_matrix_is_taken() -> None:
    assert update_cost(64, 2, 1000, 1, "auto")[:2] == ("sample", 128)
    assert update_cost(600, 2, 1000, 1, "auto")[:2] == ("parameter", 1000)
    assert update_cost(600, 2, 1000, 1, "sample")[:2] == ("sample", 1200)


def test_one_process_sends_nothing() -> None:
    for space in ("sample", "parameter"):
        assert update_cost(64, 2, 1000, 1, space).sent == 0.0
    assert update_cost(64, 1, 1000, 1, "sample").memory == 8 * (64 * 1000 + 3 * 64**2)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_bytes_of_the_columns_are_those_that_are_sent(monkeypatch: pytest.MonkeyPatch, num_processes: int) -> None:
    """Counted where rows turn into columns: all but the own part of every message leaves the process."""
    sent = []

    def count(received: torch.Tensor, message: torch.Tensor) -> None:
        sent.append(message[1:].nbytes)
        received.copy_(message)

    monkeypatch.setattr(dist, "all_to_all_single", count)
    collectives = Collectives()
    collectives.size = num_processes
    samples, parameters = 32, 400
    collectives.transpose_shards(torch.zeros(samples // num_processes, parameters, dtype=torch.float64))
    rest = 8 * (2 * samples**2 + 2 * parameters) * (num_processes - 1) / num_processes
    expected = update_cost(samples, 1, parameters, num_processes, "sample").sent - rest
    assert sum(sent) == expected
